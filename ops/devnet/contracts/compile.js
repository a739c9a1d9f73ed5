// Gathers the devnet's contracts: node compile.js TOOLS OUT
//
// TOOLS is a folder with node_modules; OUT becomes { name: { code, runtime } } with the code
// that creates a contract and the code that it then has.
//
// The Solidity files of this folder are found by their ending; each is compiled with solc and
// gives the contract with the name of the file, if it has one. The contracts that are published
// are taken from their packages as they are.

const fs = require("fs");
const path = require("path");

const [tools, out] = process.argv.slice(2);
const modules = path.resolve(tools, "node_modules");
const solc = require(path.join(modules, "solc"));

const cow = "@cowprotocol/contracts/deployments/sepolia";
const safe = "@safe-global/safe-contracts/build/artifacts/contracts";
const PUBLISHED = {
  GPv2Authentication: `${cow}/GPv2AllowListAuthentication_Implementation.json`,
  GPv2AuthenticationProxy: `${cow}/GPv2AllowListAuthentication_Proxy.json`,
  GPv2Settlement: `${cow}/GPv2Settlement.json`,
  Safe: `${safe}/Safe.sol/Safe.json`,
  SafeProxy: `${safe}/proxies/SafeProxy.sol/SafeProxy.json`,
  SafeProxyFactory: `${safe}/proxies/SafeProxyFactory.sol/SafeProxyFactory.json`,
  WETH9: "canonical-weth/build/contracts/WETH9.json",
};

const files = fs.readdirSync(__dirname).filter((file) => file.endsWith(".sol"));
const sources = Object.fromEntries(
  files.map((file) => [file, { content: fs.readFileSync(path.join(__dirname, file), "utf8") }]),
);
const output = JSON.parse(
  solc.compile(
    JSON.stringify({
      language: "Solidity",
      sources,
      settings: {
        optimizer: { enabled: true, runs: 10000 },
        // The same bytes whatever the folder is called.
        metadata: { bytecodeHash: "none", appendCBOR: false },
        outputSelection: { "*": { "*": ["evm.bytecode.object", "evm.deployedBytecode.object"] } },
      },
    }),
  ),
);

const problems = (output.errors ?? []).map((problem) => problem.formattedMessage);
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}

const contracts = {};
for (const file of files) {
  const name = path.basename(file, ".sol");
  const evm = output.contracts[file]?.[name]?.evm;
  if (evm) {
    contracts[name] = {
      code: "0x" + evm.bytecode.object,
      runtime: "0x" + evm.deployedBytecode.object,
    };
  }
}
for (const [name, file] of Object.entries(PUBLISHED)) {
  const artifact = JSON.parse(fs.readFileSync(path.join(modules, file), "utf8"));
  contracts[name] = { code: artifact.bytecode, runtime: artifact.deployedBytecode };
}
// Written beside and renamed: a test that runs meanwhile reads the old file or the new one.
fs.writeFileSync(out + ".new", JSON.stringify(contracts, null, 2) + "\n");
fs.renameSync(out + ".new", out);
