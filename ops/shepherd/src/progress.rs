//! How far long work has come: a bar on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over things that are counted, on standard error and only on a terminal.
pub struct Counter {
    bar: ProgressBar,
}

impl Counter {
    /// An empty bar for `total` things, such as records.
    pub fn start(prefix: &str, things: &str, total: u64) -> Counter {
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let template = "{prefix}  {wide_bar} {percent:>3} %  {human_pos} of {human_len} {msg}  ETA {eta_precise}";
        bar.set_style(style(template));
        bar.set_prefix(prefix.to_owned());
        bar.set_message(things.to_owned());
        Counter { bar }
    }

    /// So many are done.
    pub fn set(&self, done: u64) {
        self.bar.set_position(done);
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).expect("a constant template");
    style.progress_chars("=> ")
}
