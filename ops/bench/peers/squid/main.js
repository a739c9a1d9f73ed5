// Balances per holder from every ERC-20 Transfer of the blocks LAST_BLOCK ends with, from the node
// at NODE_URL, in memory: the job of modules/token-ledger.
const { createHash } = require("node:crypto");
const { EvmBatchProcessor } = require("@subsquid/evm-processor");

const TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";
const NOBODY = "0".repeat(40);

// By key as modules/token-ledger has it, in hexadecimal digits.
const values = new Map();

const processor = new EvmBatchProcessor()
  .setRpcEndpoint({ url: process.env.NODE_URL, capacity: 10 })
  .setFinalityConfirmation(64)
  .setBlockRange({ from: 0, to: Number(process.env.LAST_BLOCK) })
  .addLog({ topic0: [TRANSFER] })
  .setFields({ log: { topics: true, data: true } });

// Nothing is kept across runs.
const database = {
  async connect() {
    return { height: -1, hash: "0x" };
  },
  async transact(_, handle) {
    await handle();
  },
};

processor.run(database, async ({ blocks }) => {
  for (const { logs } of blocks) {
    for (const { address, topics, data } of logs) {
      // ERC-721 has the same signature and four topics.
      if (topics.length !== 3 || data.length !== 66) continue;
      const token = address.slice(2);
      const amount = BigInt(data);
      add(token, topics[1].slice(26), -amount);
      add(token, topics[2].slice(26), amount);
    }
  }
});

// The zero address mints and burns, all others hold.
function add(token, holder, change) {
  if (holder === NOBODY) {
    change = -change;
    holder = "";
  }
  const key = (holder === "" ? "74" : "62") + token + holder;
  values.set(key, (values.get(key) ?? 0n) + change);
}

// The processor ends the process when it has seen the last block. What it computed, in the words
// of the benchmark: how many values are not zero, and the SHA-256 of all of them as
// modules/token-ledger keeps them, in the order of their keys.
process.on("exit", (code) => {
  if (code !== 0) return;
  console.log("computed");
  const entries = [...values].filter(([, amount]) => amount !== 0n);
  entries.sort(([one], [other]) => (one < other ? -1 : 1));
  const sha256 = createHash("sha256");
  for (const [key, amount] of entries) {
    sha256.update(key + BigInt.asUintN(256, amount).toString(16).padStart(64, "0"), "hex");
  }
  console.log(`answer ${entries.length} ${sha256.digest("hex")}`);
});
