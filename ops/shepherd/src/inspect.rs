//! `shepherd module inspect`: what a module is and may do, before it runs.

use std::{ffi::OsStr, path::Path};

use serde::Serialize;
use shepherd_host::{Capability, Engine, Inspection, Manifest};
use shepherd_log::Deliver;

use crate::{
    cli::Inspect,
    exit::Failure,
    modules,
    show::{print, print_json},
};

/// What is printed, as JSON.
#[derive(Serialize)]
struct InspectionView {
    component: String,
    bytes: usize,
    sha256: String,
    imports: Vec<String>,
    exports: Vec<String>,
    /// What it needs to be granted.
    needs: Vec<String>,
    /// Imports that no version of the manifest could grant.
    unknown_imports: Vec<String>,
    manifest: Option<ManifestView>,
}

#[derive(Serialize)]
struct ManifestView {
    file: String,
    name: String,
    grants: Vec<String>,
    /// Where its webhooks may go.
    webhooks: Vec<String>,
    /// Whose documents it may get.
    http_hosts: Vec<String>,
    /// When its effects leave, unless they say so themselves.
    deliver: String,
    fuel: u64,
    memory_mib: u32,
}

/// Prints what a component imports; with its manifest, also checks one against the other.
pub fn inspect(args: &Inspect) -> Result<(), Failure> {
    let engine = modules::engine()?;
    let is_manifest = args.file.extension() == Some(OsStr::new("toml"));
    let manifest = is_manifest.then(|| modules::read_manifest(&args.file)).transpose()?;
    let component = manifest.as_ref().map_or(&*args.file, |manifest| manifest.component());
    let bytes = modules::read_component(component)?;
    let inspection = engine.inspect(&bytes).map_err(|error| modules::refused(component, &error))?;
    let view = view(&args.file, component, &inspection, manifest.as_ref());
    if args.json {
        print_json(&view);
    } else {
        print(&text(&view));
    }
    match &manifest {
        Some(manifest) => refuse_what_run_would(&engine, manifest, &bytes, component),
        None => Ok(()),
    }
}

fn refuse_what_run_would(
    engine: &Engine,
    manifest: &Manifest,
    bytes: &[u8],
    component: &Path,
) -> Result<(), Failure> {
    match engine.load(manifest, bytes) {
        Ok(_) => Ok(()),
        Err(error) => Err(modules::refused(component, &error).into()),
    }
}

fn view(
    file: &Path,
    component: &Path,
    inspection: &Inspection,
    manifest: Option<&Manifest>,
) -> InspectionView {
    let Inspection { sha256, bytes, capabilities, imports, unknown_imports, exports } = inspection;
    let names = |granted: &mut dyn Iterator<Item = &Capability>| {
        granted.map(ToString::to_string).collect::<Vec<_>>()
    };
    InspectionView {
        component: modules::tidy(component).display().to_string(),
        bytes: *bytes,
        sha256: sha256.to_string(),
        imports: imports.clone(),
        exports: exports.clone(),
        needs: names(&mut capabilities.iter()),
        unknown_imports: unknown_imports.clone(),
        manifest: manifest.map(|manifest| ManifestView {
            file: file.display().to_string(),
            name: manifest.name().to_string(),
            grants: names(&mut manifest.capabilities().iter()),
            webhooks: manifest.webhooks().iter().cloned().collect(),
            http_hosts: manifest.http_hosts().iter().cloned().collect(),
            deliver: deliver(manifest.deliver()),
            fuel: manifest.limits().fuel,
            memory_mib: manifest.limits().memory_mib,
        }),
    }
}

fn text(view: &InspectionView) -> String {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: &str| lines.push(format!("{name:<11}{value}"));
    if let Some(manifest) = &view.manifest {
        line("module", &manifest.name);
    }
    line("component", &view.component);
    line("size", &format!("{} bytes", view.bytes));
    line("sha256", &view.sha256);
    line("needs", &or_nothing(&view.needs));
    if let Some(manifest) = &view.manifest {
        line("grants", &or_nothing(&manifest.grants));
        if !manifest.webhooks.is_empty() {
            line("webhooks", &manifest.webhooks.join(", "));
        }
        if !manifest.http_hosts.is_empty() {
            line("hosts", &manifest.http_hosts.join(", "));
        }
        if manifest.grants.iter().any(|granted| granted.starts_with("effects.")) {
            line("deliver", &manifest.deliver);
        }
        line("limits", &format!("{} fuel, {} MiB", manifest.fuel, manifest.memory_mib));
    }
    line("imports", &or_nothing(&view.imports));
    line("exports", &or_nothing(&view.exports));
    if !view.unknown_imports.is_empty() {
        line("refused", &view.unknown_imports.join(", "));
    }
    let manifest = match &view.manifest {
        Some(manifest) => manifest.file.as_str(),
        None => "module.toml",
    };
    lines.push(format!(
        "\nTo run it, add to shepherd.toml:\n\n[[modules]]\nmanifest = \"{manifest}\"\nsha256 = \"{}\"\n",
        view.sha256
    ));
    lines.join("\n")
}

/// As a manifest says it.
fn deliver(deliver: Deliver) -> String {
    match deliver {
        Deliver::Instant => "instant".to_owned(),
        Deliver::Confirmations(blocks) => format!("{blocks} confirmations"),
        Deliver::Finalized => "finalized".to_owned(),
    }
}

fn or_nothing(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
