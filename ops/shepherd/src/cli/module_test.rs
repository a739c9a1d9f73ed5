//! `shepherd module test`, as people type it.

use std::path::PathBuf;

use clap::Args;

#[derive(Args, Debug)]
pub struct ModuleTest {
    /// The module's folder, with its module.toml and recordings/
    pub dir: PathBuf,

    /// Write down what the module does now as what it has to do
    #[arg(long)]
    pub bless: bool,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
