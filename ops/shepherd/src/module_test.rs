//! `shepherd module test`: the recordings beside a module, run again.

use serde::Serialize;
use shepherd_replay::module_test::{ModuleTestError, Tested, Verdict, bless, module_test};
use shepherd_rpc::in_words;

use crate::{
    cli::ModuleTest,
    exit::{Code, Failure, Problem},
    modules,
    show::{count, print, print_json},
};

/// What came of one recording, as JSON.
#[derive(Serialize)]
struct TestedView {
    recording: String,
    /// `met`, `unmet` or `nothing-expected`.
    verdict: &'static str,
    unmet: Vec<String>,
    /// Whether what it did was written down as what it has to do.
    blessed: bool,
}

/// Runs a module over its recordings; with `--bless` what it does is what it has to do from now on.
pub fn test(args: &ModuleTest) -> Result<(), Failure> {
    let engine = modules::engine()?;
    let scratch = tempfile::tempdir().map_err(|error| Problem::from_error(Code::Failed, &error))?;
    let tested = module_test(&engine, &args.dir, None, scratch.path());
    let tested = tested.map_err(|error| problem(&error))?;
    for tested in tested.iter().filter(|_| args.bless) {
        bless(tested).map_err(|error| problem(&error))?;
    }
    let views: Vec<TestedView> = tested.iter().map(|tested| view(tested, args.bless)).collect();
    match args.json {
        true => print_json(&views),
        false => views.iter().for_each(|view| print(&text(view))),
    }
    let wrong = views.iter().filter(|view| view.verdict != "met" && !view.blessed).count();
    if wrong == 0 {
        return Ok(());
    }
    let message = format!("{} not as expected", count(wrong as u64, "recording"));
    let help = "look at what changed; when it is meant, --bless writes it down";
    Err(Problem::new(Code::Different, message).help(help).into())
}

fn view(tested: &Tested, blessed: bool) -> TestedView {
    let (verdict, unmet) = match &tested.verdict {
        Verdict::Met => ("met", Vec::new()),
        Verdict::NothingExpected => ("nothing-expected", Vec::new()),
        Verdict::Unmet(unmet) => ("unmet", unmet.iter().map(ToString::to_string).collect()),
    };
    TestedView { recording: tested.recording.display().to_string(), verdict, unmet, blessed }
}

fn text(view: &TestedView) -> String {
    let TestedView { recording, verdict, unmet, blessed } = view;
    let verdict = match (*verdict, blessed) {
        ("met", _) => "as expected",
        (_, true) => "written down",
        ("unmet", _) => "NOT AS EXPECTED",
        _ => "nothing is expected yet: --bless writes down what it does",
    };
    let unmet: String = unmet.iter().map(|unmet| format!("  {unmet}\n")).collect();
    format!("{recording}: {verdict}\n{unmet}")
}

fn problem(error: &ModuleTestError) -> Problem {
    let code = match error {
        ModuleTestError::Manifest(_) | ModuleTestError::Load(_) | ModuleTestError::Bind { .. } => {
            Code::Module
        }
        _ => Code::Failed,
    };
    Problem::new(code, in_words(error))
}
