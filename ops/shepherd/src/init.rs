//! `shepherd init`: a configuration to start from.

use std::{
    fs::OpenOptions,
    io::{ErrorKind, Write},
    path::Path,
};

use crate::{
    config,
    exit::{Code, Failure, Problem, file_problem},
    show::print,
};

/// Writes the commented template, never over an existing file.
pub fn init(file: &Path) -> Result<(), Failure> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .and_then(|mut opened| opened.write_all(config::TEMPLATE.as_bytes()));
    if let Err(error) = written {
        if error.kind() == ErrorKind::AlreadyExists {
            let message = format!("{} exists already", file.display());
            let help = "edit it, or name another file with --config";
            return Err(Problem::new(Code::Configuration, message).help(help).into());
        }
        let problem = file_problem(Code::Configuration, "write", file, &error);
        return Err(problem.help("check that the directory exists and can be written to").into());
    }
    let named = match file.to_str() {
        Some("shepherd.toml") => String::new(),
        _ => format!(" --config {}", file.display()),
    };
    print(&format!(
        "Wrote {}. Edit the chain and its endpoints, then:\n  \
         shepherd check{named}\n  shepherd run{named}\n",
        file.display()
    ));
    Ok(())
}
