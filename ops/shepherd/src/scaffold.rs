//! `shepherd module new`: a small module that works, to be changed into another one.
//!
//! ```text
//! NAME/  Cargo.toml   a workspace of its own, on the SDK of the checkout
//!        Cargo.lock   the versions the SDK is tested with
//!        module.toml  what it may do, and when it is called
//!        src/lib.rs   the module, with its tests
//!        README.md    its configuration and its state
//!        .gitignore
//! ```
//!
//! What it writes is built, tested and run in CI: ops/docs/module-tutorial.md begins with it.

use std::{
    env,
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    path::{Component, Path, PathBuf, absolute},
};

use shepherd_log::ModuleName;

use crate::{
    cli::NewModule,
    exit::{Code, Failure, Problem, file_problem},
    show::print,
};

/// The files, by their path in the module's folder. `{{name}}` and `{{sdk}}` are filled in.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("scaffold/cargo.toml")),
    ("module.toml", include_str!("scaffold/module.toml")),
    ("src/lib.rs", include_str!("scaffold/lib.rs")),
    ("README.md", include_str!("scaffold/readme.md")),
    (".gitignore", include_str!("scaffold/gitignore")),
];

/// Where the SDK is in a checkout.
const SDK: &str = "modules/sdk";

/// Writes a new module into a new folder.
pub fn new(args: &NewModule) -> Result<(), Failure> {
    let here = env::current_dir().map_err(|error| {
        let message = format!("cannot tell what the current directory is: {error}");
        Problem::new(Code::Failed, message)
    })?;
    let folder = args.path.clone().unwrap_or_else(|| args.name.as_str().into());
    let sdk = match &args.sdk {
        Some(sdk) if is_sdk(sdk) => sdk.clone(),
        Some(sdk) => {
            let message = format!("{} is not the SDK's folder", sdk.display());
            let help = format!("name the folder `{SDK}` of a checkout of Shepherd");
            return Err(Problem::new(Code::Failed, message).help(help).into());
        }
        None => find_sdk(&[&folder, &here]).ok_or_else(|| {
            let message = "no checkout of Shepherd is around here to take the SDK from";
            let help = format!("name the SDK's folder: --sdk CHECKOUT/{SDK}");
            Problem::new(Code::Failed, message).help(help)
        })?,
    };
    write(&args.name, &folder, &sdk)?;

    let shown = folder.display();
    print(&format!(
        "Wrote {shown}: a module that counts transfers. Make it yours, and:\n  \
         cd {shown} && cargo test\n  \
         cargo xtask guest {shown}      in Shepherd's checkout; makes the component\n  \
         shepherd module inspect {shown}/module.toml\n"
    ));
    Ok(())
}

/// A name that the manifest and Cargo both take.
pub fn name(text: &str) -> Result<ModuleName, String> {
    let name: ModuleName = text.parse().map_err(|error| format!("{error}"))?;
    if TAKEN.split_whitespace().any(|taken| taken == text) {
        return Err(format!("`{text}` means something else to Rust: choose another name"));
    }
    Ok(name)
}

/// Names that Cargo refuses for a library, or that its dependencies have.
const TAKEN: &str = "
    abstract alloc as async await become box break const continue core crate do dyn else enum
    extern false final fn for gen if impl in let loop macro match mod move mut override priv
    proc-macro pub ref return self serde shepherd-sdk static std struct super test trait true try
    type typeof unsafe unsized use virtual where while yield";

fn write(name: &ModuleName, folder: &Path, sdk: &Path) -> Result<(), Problem> {
    let cannot = |path: &Path, error: &io::Error| {
        if error.kind() == ErrorKind::AlreadyExists {
            let message = format!("{} exists already", path.display());
            let help = "choose another name, or another folder with --path";
            return Problem::new(Code::Failed, message).help(help);
        }
        file_problem(Code::Failed, "write", path, error)
    };
    // Fails when it is there, whatever it is: so nothing below is written over anything.
    fs::create_dir(folder).map_err(|error| cannot(folder, &error))?;
    let source = folder.join("src");
    fs::create_dir(&source).map_err(|error| cannot(&source, &error))?;
    let canonical = |path: &Path| path.canonicalize().map_err(|error| cannot(path, &error));
    let (absolute_folder, absolute_sdk) = (canonical(folder)?, canonical(sdk)?);
    let path = way(&absolute_folder, &absolute_sdk);
    for (file, template) in FILES {
        let text = filled(template, name, &path);
        let file = folder.join(file);
        fs::write(&file, text).map_err(|error| cannot(&file, &error))?;
    }
    // Cargo keeps the versions it finds there and drops the rest: the module is built from what
    // the SDK is tested with, and not from what was published since.
    if let Some(lock) = absolute_sdk.ancestors().nth(2).map(|checkout| checkout.join("Cargo.lock"))
        && lock.is_file()
    {
        let copy = folder.join("Cargo.lock");
        fs::copy(&lock, &copy).map_err(|error| cannot(&copy, &error))?;
    }
    Ok(())
}

fn filled(template: &str, name: &ModuleName, sdk: &Path) -> String {
    // TOML's basic strings escape as JSON's do.
    let sdk = serde_json::to_string(&sdk.to_string_lossy()).expect("text is JSON");
    template.replace("{{name}}", name.as_str()).replace("\"{{sdk}}\"", &sdk)
}

/// The SDK of the first checkout that is around one of these places.
fn find_sdk(places: &[&Path]) -> Option<PathBuf> {
    let mut places = places.iter().filter_map(|place| absolute(place).ok());
    let sdk_around = |place: PathBuf| {
        let mut sdks = place.ancestors().map(|folder| folder.join(SDK));
        sdks.find(|sdk| is_sdk(sdk))
    };
    places.find_map(sdk_around)
}

fn is_sdk(folder: &Path) -> bool {
    let manifest = fs::read_to_string(folder.join("Cargo.toml"));
    let table = manifest.ok().and_then(|text| text.parse::<toml::Table>().ok());
    let name = table.as_ref().and_then(|table| table.get("package")?.get("name")?.as_str());
    name == Some("shepherd-sdk")
}

/// The relative path from one folder to another, both absolute and without links.
fn way(from: &Path, to: &Path) -> PathBuf {
    let shared = from.components().zip(to.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let way: PathBuf = up.chain(to.components().skip(shared)).collect();
    if way.as_os_str() == OsStr::new("") { ".".into() } else { way }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use shepherd_host::{Capability, Manifest, Overrides};
    use tempfile::TempDir;

    use super::*;
    use crate::cli::Cli;

    /// A folder with something that looks like a checkout in it.
    fn checkout() -> TempDir {
        let folder = TempDir::new().unwrap();
        fs::create_dir_all(folder.path().join(SDK)).unwrap();
        let manifest = "[package]\nname = \"shepherd-sdk\"\n";
        fs::write(folder.path().join(SDK).join("Cargo.toml"), manifest).unwrap();
        fs::write(folder.path().join("Cargo.lock"), "version = 4\n").unwrap();
        folder
    }

    fn written(checkout: &TempDir, name: &str) -> Result<PathBuf, Failure> {
        let folder = checkout.path().join(name);
        let path = Some(folder.clone());
        new(&NewModule { name: name.parse().unwrap(), path, sdk: None })?;
        Ok(folder)
    }

    #[test]
    fn the_manifest_is_one_that_the_host_takes() {
        let checkout = checkout();
        let file = written(&checkout, "whale-watch").unwrap().join("module.toml");
        let manifest = Manifest::parse(&fs::read_to_string(&file).unwrap(), &file).unwrap();
        assert_eq!(manifest.name().as_str(), "whale-watch");
        assert_eq!(manifest.component(), checkout.path().join("whale-watch/whale-watch.wasm"));
        let granted: Vec<Capability> = manifest.capabilities().iter().copied().collect();
        assert_eq!(granted, [Capability::State, Capability::Logging]);
        let chain = "sepolia".parse().unwrap();
        let on_chain = manifest.for_chain(&chain, &Overrides::default()).unwrap();
        assert_eq!(on_chain.config, r#"{"tell_every":1000}"#);
        assert_eq!(on_chain.subscription.logs.len(), 1);
    }

    #[test]
    fn the_crate_depends_on_the_sdk_of_the_checkout_it_is_in() {
        let checkout = checkout();
        let folder = written(&checkout, "whale-watch").unwrap();
        let text = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let crate_: toml::Table = text.parse().unwrap();
        assert_eq!(crate_["package"]["name"].as_str(), Some("whale-watch"));
        assert_eq!(crate_["workspace"].as_table(), Some(&toml::Table::new()));
        let path = crate_["dependencies"]["shepherd-sdk"]["path"].as_str();
        assert_eq!(path, Some("../modules/sdk"));
        assert_eq!(fs::read(folder.join("Cargo.lock")).unwrap(), b"version = 4\n");
    }

    #[test]
    fn nothing_is_left_to_be_filled_in() {
        for (file, template) in FILES {
            let text = filled(template, &"whale-watch".parse().unwrap(), Path::new("a \"b\""));
            assert!(!text.contains("{{"), "{file}: {text}");
        }
        let text = filled(FILES[0].1, &"a".parse().unwrap(), Path::new("a \"b\""));
        let crate_: toml::Table = text.parse().unwrap();
        assert_eq!(crate_["dependencies"]["shepherd-sdk"]["path"].as_str(), Some("a \"b\""));
    }

    #[test]
    fn nothing_is_written_over_what_is_there() {
        let checkout = checkout();
        let folder = written(&checkout, "whale-watch").unwrap();
        fs::write(folder.join("src/lib.rs"), "mine").unwrap();
        let failure = written(&checkout, "whale-watch").unwrap_err().to_string();
        let message = format!("error: {} exists already\nhelp: choose", folder.display());
        assert!(failure.starts_with(&message), "{failure}");
        assert_eq!(fs::read(folder.join("src/lib.rs")).unwrap(), b"mine");
        fs::write(checkout.path().join("file"), "mine").unwrap();
        assert!(written(&checkout, "file").is_err());
        assert_eq!(fs::read(checkout.path().join("file")).unwrap(), b"mine");
        let path = Some(checkout.path().join("no/where"));
        let args = NewModule { name: "a".parse().unwrap(), path, sdk: None };
        let failure = new(&args).unwrap_err().to_string();
        assert!(failure.starts_with("error: cannot write "), "{failure}");
    }

    #[test]
    fn an_sdk_that_is_none_is_refused_before_anything_is_written() {
        let checkout = checkout();
        let path = Some(checkout.path().join("whale-watch"));
        let sdk = Some(checkout.path().join("modules"));
        let args = NewModule { name: "whale-watch".parse().unwrap(), path, sdk };
        let failure = new(&args).unwrap_err().to_string();
        assert!(failure.contains("modules is not the SDK's folder"), "{failure}");
        assert!(!checkout.path().join("whale-watch").exists());
    }

    #[test]
    fn an_sdk_is_found_around_the_first_place_that_has_one() {
        let (one, other, nowhere) = (checkout(), checkout(), TempDir::new().unwrap());
        let check = |places: &[&Path], expected: Option<&TempDir>| {
            assert_eq!(find_sdk(places), expected.map(|checkout| checkout.path().join(SDK)));
        };
        check(&[&one.path().join("a/b"), other.path()], Some(&one));
        check(&[nowhere.path(), other.path()], Some(&other));
        check(&[nowhere.path()], None);
    }

    #[test]
    fn names() {
        for good in ["a", "whale-watch", "erc20"] {
            assert_eq!(name(good).unwrap().as_str(), good);
        }
        for (bad, words) in [
            ("", "is not a name"),
            ("Whale", "is not a name"),
            ("7up", "is not a name"),
            ("whale_watch", "is not a name"),
            ("../whale", "is not a name"),
            ("match", "choose another name"),
            ("core", "choose another name"),
            ("shepherd-sdk", "choose another name"),
        ] {
            let message = name(bad).unwrap_err();
            assert!(message.contains(words), "{bad}: {message}");
            assert!(Cli::try_parse_from(["shepherd", "module", "new", bad]).is_err(), "{bad}");
        }
    }

    #[test]
    fn ways() {
        let check = |from: &str, to: &str, expected: &str| {
            assert_eq!(way(Path::new(from), Path::new(to)), Path::new(expected));
        };
        check("/a/b", "/a/c/d", "../c/d");
        check("/a/b", "/a", "..");
        check("/a", "/a/b", "b");
        check("/a", "/a", ".");
        check("/a", "/b", "../b");
    }
}
