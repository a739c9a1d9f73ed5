//! The demo's `shepherd.toml`.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::Value;

/// What the file says.
pub struct Config {
    /// Port of the admin server.
    pub admin_port: u16,
    /// The chain's id.
    pub chain_id: u64,
    /// Addresses of the node, the ones that announce blocks first.
    pub endpoints: Vec<String>,
    /// The modules that run.
    pub modules: Vec<Module>,
}

/// One module of the file.
pub struct Module {
    /// Its `module.toml`.
    pub manifest: PathBuf,
    /// The component that may run.
    pub sha256: String,
    /// What takes the place of the manifest's own configuration: strings, numbers and lists
    /// of them.
    pub overrides: Vec<(&'static str, Value)>,
}

/// The chain's name, in the file and in the names of lanes.
pub const CHAIN: &str = "devnet";

impl Config {
    /// The text of the file. Relative paths in it start at the file.
    pub fn text(&self) -> String {
        let mut text = format!(
            "# Written by `cargo xtask demo` at each start; changes are lost.\n\
             data_dir = \"data\"\n\n\
             [admin]\n\
             listen = \"127.0.0.1:{}\"\n\n\
             [chains.{CHAIN}]\n\
             chain_id = {}\n\
             endpoints = {}\n\
             start_block = 0\n\
             poll_interval = \"1s\"\n",
            self.admin_port,
            self.chain_id,
            Value::from(self.endpoints.clone()),
        );
        for module in &self.modules {
            // A JSON string is a TOML string, and so is a list of them.
            let manifest = Value::from(module.manifest.to_string_lossy());
            let sha256 = &module.sha256;
            let _ = write!(
                text,
                "\n[[modules]]\nmanifest = {manifest}\nsha256 = \"{sha256}\"\n\
                 chains = [\"{CHAIN}\"]\n"
            );
            if !module.overrides.is_empty() {
                text.push_str("[modules.config]\n");
            }
            for (key, value) in &module.overrides {
                let _ = writeln!(text, "{key} = {value}");
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_file_says_what_it_was_given() {
        let config = Config {
            admin_port: 7878,
            chain_id: 31337,
            endpoints: vec!["ws://127.0.0.1:1".to_owned(), "http://127.0.0.1:1".to_owned()],
            modules: vec![Module {
                manifest: "a \"quoted\" folder/module.toml".into(),
                sha256: "ab".repeat(32),
                overrides: vec![("tokens", json!(["0x01"])), ("every", json!(1))],
            }],
        };
        let wanted = r#"data_dir = "data"

[admin]
listen = "127.0.0.1:7878"

[chains.devnet]
chain_id = 31337
endpoints = ["ws://127.0.0.1:1","http://127.0.0.1:1"]
start_block = 0
poll_interval = "1s"

[[modules]]
manifest = "a \"quoted\" folder/module.toml"
sha256 = "abababababababababababababababababababababababababababababababab"
chains = ["devnet"]
[modules.config]
tokens = ["0x01"]
every = 1
"#;
        let text = config.text();
        let (comment, rest) = text.split_once('\n').expect("several lines");
        assert!(comment.starts_with("# "));
        assert_eq!(rest, wanted);
    }
}
