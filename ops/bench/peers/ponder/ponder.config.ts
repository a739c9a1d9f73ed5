import { createConfig } from "ponder";
import { parseAbi } from "viem";

// Every ERC-20 Transfer of every token in the blocks LAST_BLOCK ends with, from the node at NODE_URL.
export default createConfig({
  // PGlite, in the project's folder, with the cache of what was asked of the node.
  database: { kind: "pglite" },
  chains: {
    // No polling worth the name: the node's chain does not grow.
    mainnet: { id: 1, rpc: process.env.NODE_URL, pollingInterval: 60_000 },
  },
  contracts: {
    Token: {
      chain: "mainnet",
      abi: parseAbi(["event Transfer(address indexed from, address indexed to, uint256 value)"]),
      startBlock: 0,
      endBlock: Number(process.env.LAST_BLOCK),
    },
  },
});
