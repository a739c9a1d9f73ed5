// Compiles the devnet's contracts: node compile.js TOOLS OUT
//
// TOOLS is a folder with node_modules/solc; OUT becomes { name: { code } } with creation code.
// The Solidity files of this folder are found by their ending, one contract in each, with the
// name of the file.

const fs = require("fs");
const path = require("path");

const [tools, out] = process.argv.slice(2);
const solc = require(path.resolve(tools, "node_modules/solc"));

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
        outputSelection: { "*": { "*": ["evm.bytecode.object"] } },
      },
    }),
  ),
);

const problems = (output.errors ?? []).map((problem) => problem.formattedMessage);
if (problems.length > 0) {
  console.error(problems.join("\n"));
  process.exit(1);
}

const contracts = Object.fromEntries(
  files.map((file) => {
    const name = path.basename(file, ".sol");
    return [name, { code: "0x" + output.contracts[file][name].evm.bytecode.object }];
  }),
);
// Written beside and renamed: a test that runs meanwhile reads the old file or the new one.
fs.writeFileSync(out + ".new", JSON.stringify(contracts, null, 2) + "\n");
fs.renameSync(out + ".new", out);
