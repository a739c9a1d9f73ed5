//! A past that was not: what the command line asks to change, as replay takes it.

use std::{fs::File, io::BufReader};

use shepherd_replay::what_if::{Inject, WhatIf};

use crate::{
    cli,
    exit::{Code, Problem, file_problem},
};

/// What is asked for; nothing when no option says so.
pub fn read(args: &cli::WhatIf) -> Result<WhatIf, Problem> {
    let inject = match &args.inject {
        None => Vec::new(),
        Some(file) => {
            let opened = File::open(file)
                .map_err(|error| file_problem(Code::Failed, "read the logs in", file, &error))?;
            Inject::read(BufReader::new(opened)).map_err(|error| {
                Problem::new(Code::Failed, format!("{}: {error}", file.display()))
            })?
        }
    };
    Ok(WhatIf { inject, drop: args.drop.clone(), reorgs: args.reorg_at.clone() })
}
