//! What a component may import is decided before anything of it runs.

mod support;

use shepherd_host::{Capability, LoadError, Sha256, limits};
use support::{CHAIN_ID, component, engine, hostile_manifest, manifest};

#[test]
fn an_import_that_is_not_granted_is_refused_by_name() {
    let refused = |granted: &[Capability]| {
        let names: Vec<String> = granted.iter().map(|name| format!("\"{name}\"")).collect();
        let manifest = hostile_manifest(&names.join(", "), 1_000_000);
        engine().load(&manifest, &component("hostile")).unwrap_err()
    };
    for missing in Capability::ALL {
        let all_but_one: Vec<Capability> =
            Capability::ALL.into_iter().filter(|granted| *granted != missing).collect();
        let refused = refused(&all_but_one);
        let LoadError::NotGranted { imports, .. } = &refused else { panic!("{refused}") };
        assert_eq!(imports, &[missing]);
        let words = format!(
            "hostile imports `{missing}`, which its manifest does not grant: add it to \
             `capabilities` if the module may have it"
        );
        assert_eq!(refused.to_string(), words);
    }
    let LoadError::NotGranted { imports, .. } = refused(&[]) else { panic!("nothing is granted") };
    assert_eq!(imports, Capability::ALL);
}

#[test]
fn a_module_that_only_calls_webhooks_needs_no_grant_to_place_orders() {
    let inspection = engine().inspect(&component("price-alert")).unwrap();
    assert!(inspection.capabilities.contains(&Capability::Webhook));
    assert!(!inspection.capabilities.contains(&Capability::PlaceOrder));
    assert!(inspection.imports.contains(&Capability::PlaceOrder.import()), "the same interface");
}

#[test]
fn a_module_imports_what_it_calls_and_nothing_else() {
    let check = |name: &str, expected: &[Capability]| {
        let inspection = engine().inspect(&component(name)).unwrap();
        assert_eq!(inspection.capabilities, expected.iter().copied().collect(), "{name}");
        assert_eq!(inspection.unknown_imports, [""; 0], "{name}");
        assert_eq!(inspection.exports, ["configure", "handle"], "{name}");
        assert_eq!(inspection.sha256, Sha256::of(&component(name)));
    };
    check("token-ledger", &[Capability::State]);
    check(
        "balance-tracker",
        &[Capability::State, Capability::Chain, Capability::Logging, Capability::Webhook],
    );
    check("hostile", &Capability::ALL);
}

#[test]
fn the_manifests_next_to_the_modules_load_them() {
    for (folder, name) in [
        ("token-ledger", "token-ledger"),
        ("balance-tracker", "balance-tracker"),
        ("fixtures/hostile", "hostile"),
    ] {
        let manifest = manifest(folder);
        assert_eq!(manifest.name().as_str(), name);
        let expected = format!("target/modules/{name}.wasm");
        assert!(manifest.component().ends_with(&expected), "{}", manifest.component().display());
        let module = engine().load(&manifest, &component(name)).unwrap();
        assert_eq!(module.sha256(), Sha256::of(&component(name)));
        module.bind(&"devnet".parse().unwrap(), CHAIN_ID, &Default::default()).unwrap();
    }
}

/// A section of a binary: id, size, content.
fn section(id: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![id];
    let mut size = content.len();
    while size >= 0x80 {
        bytes.push(size as u8 | 0x80);
        size >>= 7;
    }
    bytes.push(size as u8);
    bytes.extend(content);
    bytes
}

/// A component around a core module with these sections.
fn around(sections: &[Vec<u8>]) -> Vec<u8> {
    let core = [b"\0asm\x01\0\0\0".as_slice(), &sections.concat()].concat();
    [b"\0asm\x0d\0\x01\0".as_slice(), &section(1, &core)].concat()
}

#[test]
fn proposals_that_no_module_needs_are_refused() {
    let engine = engine();
    let load = |sections: &[Vec<u8>]| engine.inspect(&around(sections)).map(|_| ());
    load(&[section(5, &[1, 0, 1])]).expect("an ordinary memory is fine");

    let refused = [
        ("threads must be enabled", section(5, &[1, 3, 1, 1])),
        ("memory64 must be enabled", section(5, &[1, 4, 1])),
        ("multiple memories", section(5, &[2, 0, 1, 0, 1])),
        (
            "exceptions proposal not enabled",
            [section(1, &[1, 0x60, 0, 0]), section(13, &[1, 0, 0])].concat(),
        ),
        ("gc types are disabled", section(1, &[1, 0x5f, 0])),
        ("stack switching is disabled", section(1, &[2, 0x60, 0, 0, 0x5d, 0])),
        // (func (param v128 v128 v128) (result v128) local.get 0 1 2, relaxed fused multiply-add)
        (
            "relaxed SIMD support is not enabled",
            [
                section(1, &[1, 0x60, 3, 0x7b, 0x7b, 0x7b, 1, 0x7b]),
                section(3, &[1, 0]),
                section(10, &[1, 11, 0, 0x20, 0, 0x20, 1, 0x20, 2, 0xfd, 0x85, 0x02, 0x0b]),
            ]
            .concat(),
        ),
        // A tail call of itself.
        (
            "tail calls support is not enabled",
            [
                section(1, &[1, 0x60, 0, 0]),
                section(3, &[1, 0]),
                section(10, &[1, 4, 0, 0x12, 0, 0x0b]),
            ]
            .concat(),
        ),
    ];
    for (what, sections) in refused {
        let error = load(&[sections]).expect_err(what);
        assert!(error.to_string().contains(what), "{what}: {error}");
    }
}

#[test]
fn what_is_not_a_component_is_refused() {
    let engine = engine();
    let invalid = |bytes: &[u8]| matches!(engine.inspect(bytes), Err(LoadError::Invalid { .. }));
    assert!(invalid(b""));
    assert!(invalid(b"(component)"), "no text format");
    assert!(invalid(b"\0asm\x01\0\0\0"), "a core module");
    let mut cut = component("token-ledger");
    cut.truncate(cut.len() / 2);
    assert!(invalid(&cut));
    let large = vec![0; limits::COMPONENT_BYTES_MAX + 1];
    assert!(matches!(engine.inspect(&large), Err(LoadError::TooLarge { .. })));
}

#[test]
fn a_component_without_the_exports_breaks_the_contract() {
    let manifest = manifest("token-ledger");
    let empty = b"\0asm\x0d\0\x01\0";
    let refused = engine().load(&manifest, empty).unwrap_err();
    assert!(matches!(refused, LoadError::Contract { .. }), "{refused}");
}

#[test]
fn an_effect_that_does_not_exist_is_refused_by_name() {
    // (component (import "shepherd:module/effects@0.1.0" (instance (export "cancel" (func)))))
    let interface = b"shepherd:module/effects@0.1.0";
    let export = [&[0x04, 0, 6], b"cancel".as_slice(), &[1, 0]].concat();
    let ty = section(7, &[&[1, 0x42, 2, 0x01, 0x40, 0, 1, 0], export.as_slice()].concat());
    let import = [&[1, 0, interface.len() as u8], interface.as_slice(), &[5, 0]].concat();
    let other = [b"\0asm\x0d\0\x01\0".as_slice(), &ty, &section(10, &import)].concat();
    let refused = engine().load(&manifest("token-ledger"), &other).unwrap_err();
    let LoadError::UnknownImports { imports, .. } = &refused else { panic!("{refused}") };
    assert_eq!(imports, &["shepherd:module/effects@0.1.0.cancel"]);
}

#[test]
fn an_import_from_elsewhere_is_refused_by_name() {
    // (component (import "wasi:clocks/wall-clock@0.2.0" (instance)))
    let name = b"wasi:clocks/wall-clock@0.2.0";
    let ty = section(7, &[1, 0x42, 0]);
    let import = [&[1, 0, name.len() as u8], name.as_slice(), &[5, 0]].concat();
    let foreign = [b"\0asm\x0d\0\x01\0".as_slice(), &ty, &section(10, &import)].concat();
    let refused = engine().load(&manifest("token-ledger"), &foreign).unwrap_err();
    let LoadError::UnknownImports { imports, .. } = &refused else { panic!("{refused}") };
    assert_eq!(imports, &["wasi:clocks/wall-clock@0.2.0"]);
}
