"""Makes the files of this folder again. See README.md."""

import json
import sys
import urllib.request

import cryo

URL = sys.argv[1]
EMITTER = "0x00000000000000000000000000000000000000ee"
# Transactions in the blocks 1 to 5. Each emits five logs, with none to four topics.
TRANSACTIONS = [0, 1, 3, 2, 0]


def rpc(method, *params):
    body = json.dumps(dict(jsonrpc="2.0", id=1, method=method, params=params)).encode()
    request = urllib.request.Request(URL, body, {"content-type": "application/json"})
    answer = json.load(urllib.request.urlopen(request))
    assert "error" not in answer, answer
    return answer["result"]


def emit(topics):
    """PUSH32 for each topic, CALLDATASIZE, PUSH1 0, LOGn."""
    pushes = "".join("7f" + f"{0xA0 + n:02x}" * 32 for n in reversed(range(topics)))
    return pushes + "366000" + f"{0xA0 + topics:02x}"


# CALLDATASIZE, PUSH1 0, DUP1, CALLDATACOPY, then the logs, STOP.
rpc("anvil_setCode", EMITTER, "0x3660008037" + "".join(emit(n) for n in range(5)) + "00")
rpc("anvil_setBlockTimestampInterval", 12)
rpc("evm_setAutomine", False)
accounts = rpc("eth_accounts")
for number, count in enumerate(TRANSACTIONS, start=1):
    for n in range(count):
        data = "0x" + f"{number:02x}" * (20 * n)
        rpc("eth_sendTransaction", {"from": accounts[n], "to": EMITTER, "gas": hex(200_000), "data": data})
    rpc("evm_mine")

with open("headers.jsonl", "w") as file:
    for number in range(len(TRANSACTIONS) + 1):
        header = rpc("eth_getBlockByNumber", hex(number), False)
        file.write(json.dumps(header, separators=(",", ":")) + "\n")

common = dict(rpc=URL, blocks=[f"0:{len(TRANSACTIONS) + 1}"], no_report=True, verbose=False)
cryo.freeze(["blocks", "logs"], output_dir="default", chunk_size=5, **common)
logs = ["block_number", "block_hash", "transaction_index", "log_index", "transaction_hash", "address"]
columns = {
    "blocks": ["block_number", "timestamp", "parent_hash", "block_hash"],
    "logs": [*logs, "topic0", "topic1", "topic2", "topic3", "data"],
}
for table, names in columns.items():
    cryo.freeze(
        table,
        output_dir="hex",
        chunk_size=6,
        label="labelled",
        hex=True,
        columns=names,
        compression=["zstd", "3"],
        row_group_size=20,
        **common,
    )
