//! Running other programs.

use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

/// Runs a program to its end, with our terminal; its failure is an error.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("starting {}", shown(command)))?;
    if !status.success() {
        bail!("{} failed with {status}", shown(command));
    }
    Ok(())
}

/// What a program prints on its standard output, without the spaces around it.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("starting {}", shown(command)))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{} failed with {}:\n{}", shown(command), output.status, complaint.trim());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The cargo that runs us, in the workspace. What it builds goes to `target`, where the rest
/// of xtask looks for it.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).env("CARGO_TARGET_DIR", root.join("target"));
    forget_ourselves(&mut command);
    command
}

/// Takes from a command's environment what cargo told us about ourselves. It is not about what
/// is built next: build scripts that look at it would run again each time, and with them
/// everything that depends on them.
pub fn forget_ourselves(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let of_this_package = |name: &str| {
            ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
        };
        if name.to_str().is_some_and(of_this_package) {
            command.env_remove(&name);
        }
    }
}

/// Whether a program of this name is on the path.
pub fn on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

fn shown(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy()];
    words.extend(command.get_args().map(|argument| argument.to_string_lossy()));
    format!("`{}`", words.join(" "))
}
