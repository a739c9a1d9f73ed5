//! A component, checked against its manifest before anything of it runs.

use std::{collections::BTreeSet, fmt, sync::Arc};

use shepherd_log::ModuleName;
use wasmtime::component::{Component, Linker, types::ComponentItem};

use crate::{
    bindings::ModulePre,
    capability::{ALWAYS, Capability, interface},
    engine::Engine,
    imports::{self, Guest},
    limits::{COMPONENT_BYTES_MAX, MEMORIES_MAX, TABLES_MAX},
    manifest::Manifest,
    sha256::Sha256,
};

/// A compiled module that may run with what its manifest grants. Cheap to clone.
#[derive(Clone)]
pub struct Module(Arc<Loaded>);

struct Loaded {
    engine: Engine,
    manifest: Manifest,
    sha256: Sha256,
    pre: ModulePre<Guest>,
}

/// A component that was refused.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is too large to be a module.
    #[error("the component has {bytes} bytes; at most {COMPONENT_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// It is not a component this engine accepts.
    #[error("this is not a component that can be loaded: {reason}")]
    Invalid {
        /// What the compiler says.
        reason: String,
    },
    /// It imports what its manifest does not grant.
    #[error(
        "{module} imports {}, which its manifest does not grant: add it to `capabilities` if the \
         module may have it",
        quoted(imports)
    )]
    NotGranted {
        /// The module.
        module: ModuleName,
        /// What is missing from the manifest.
        imports: Vec<Capability>,
    },
    /// It imports what does not exist here.
    #[error("{module} imports {}, which Shepherd does not offer", quoted(imports))]
    UnknownImports {
        /// The module.
        module: ModuleName,
        /// The imports, as the component names them.
        imports: Vec<String>,
    },
    /// Its imports or exports have other types than `shepherd.wit` gives them.
    #[error("{module} was built for another version of shepherd.wit: {reason}")]
    Contract {
        /// The module.
        module: ModuleName,
        /// The first difference.
        reason: String,
    },
}

fn quoted(names: &[impl fmt::Display]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What a component is, without a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Its identity.
    pub sha256: Sha256,
    /// Its size.
    pub bytes: usize,
    /// What a manifest must grant for it to load.
    pub capabilities: BTreeSet<Capability>,
    /// Every interface it imports, as it names them.
    pub imports: Vec<String>,
    /// Those of them that Shepherd does not offer.
    pub unknown_imports: Vec<String>,
    /// What it exports. A module exports `configure` and `handle`.
    pub exports: Vec<String>,
}

impl Engine {
    /// Looks at a component without running any of it.
    pub fn inspect(&self, component: &[u8]) -> Result<Inspection, LoadError> {
        Ok(self.inspect_compiled(component, &self.compile(component)?))
    }

    /// Compiles a component and checks it against its manifest. Nothing of it runs.
    pub fn load(&self, manifest: &Manifest, component: &[u8]) -> Result<Module, LoadError> {
        let module = manifest.name().clone();
        let compiled = self.compile(component)?;
        let inspection = self.inspect_compiled(component, &compiled);
        if !inspection.unknown_imports.is_empty() {
            return Err(LoadError::UnknownImports { module, imports: inspection.unknown_imports });
        }
        let granted = manifest.capabilities();
        let missing: Vec<Capability> =
            inspection.capabilities.difference(granted).copied().collect();
        if !missing.is_empty() {
            return Err(LoadError::NotGranted { module, imports: missing });
        }

        let contract = |source: wasmtime::Error| LoadError::Contract {
            module: module.clone(),
            reason: format!("{source:#}"),
        };
        let mut linker = Linker::new(self.wasmtime());
        imports::link(&mut linker, granted).expect("every interface is linked once");
        let instance_pre = linker.instantiate_pre(&compiled).map_err(contract)?;
        let pre = ModulePre::new(instance_pre).map_err(contract)?;
        Ok(Module(Arc::new(Loaded {
            engine: self.clone(),
            manifest: manifest.clone(),
            sha256: inspection.sha256,
            pre,
        })))
    }

    fn compile(&self, bytes: &[u8]) -> Result<Component, LoadError> {
        if bytes.len() > COMPONENT_BYTES_MAX {
            return Err(LoadError::TooLarge { bytes: bytes.len() });
        }
        let invalid = |reason: String| LoadError::Invalid { reason };
        // `Component::new` would also take the text format if a dependency switched it on.
        let component = Component::from_binary(self.wasmtime(), bytes)
            .map_err(|source| invalid(format!("{source:#}")))?;
        // Unknown when it instantiates modules that it would be given: nothing gives it any.
        let Some(needs) = component.resources_required() else {
            return Err(invalid("it imports a module or a component".to_owned()));
        };
        if needs.num_memories as usize > MEMORIES_MAX || needs.num_tables as usize > TABLES_MAX {
            let (memories, tables) = (needs.num_memories, needs.num_tables);
            return Err(invalid(format!(
                "it has {memories} memories and {tables} tables; at most {MEMORIES_MAX} and \
                 {TABLES_MAX}"
            )));
        }
        Ok(component)
    }

    fn inspect_compiled(&self, bytes: &[u8], component: &Component) -> Inspection {
        let engine = self.wasmtime();
        let ty = component.component_type();
        let mut inspection = Inspection {
            sha256: Sha256::of(bytes),
            bytes: bytes.len(),
            capabilities: BTreeSet::new(),
            imports: ty.imports(engine).map(|(name, _)| name.to_owned()).collect(),
            unknown_imports: Vec::new(),
            exports: ty.exports(engine).map(|(name, _)| name.to_owned()).collect(),
        };
        for (name, item) in ty.imports(engine) {
            let known: Vec<Capability> =
                Capability::ALL.into_iter().filter(|known| known.import() == name).collect();
            let always = ALWAYS.iter().any(|known| interface(known) == name);
            // A type is a name, not an ability.
            let harmless = always || matches!(item.ty, ComponentItem::Type(_));
            match (&known[..], &item.ty) {
                ([], _) if harmless => (),
                ([], _) => inspection.unknown_imports.push(name.to_owned()),
                ([whole], _) if whole.function().is_none() => {
                    inspection.capabilities.insert(*whole);
                }
                (parts, ComponentItem::ComponentInstance(instance)) => {
                    for (function, item) in instance.exports(engine) {
                        let part = parts.iter().find(|part| part.function() == Some(function));
                        match (part, item.ty) {
                            (_, ComponentItem::Type(_)) => (),
                            (Some(part), _) => {
                                inspection.capabilities.insert(*part);
                            }
                            (None, _) => {
                                inspection.unknown_imports.push(format!("{name}.{function}"));
                            }
                        }
                    }
                }
                (_, _) => inspection.unknown_imports.push(name.to_owned()),
            }
        }
        inspection
    }
}

impl Module {
    /// Its manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The identity of its code.
    pub fn sha256(&self) -> Sha256 {
        self.0.sha256
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn pre(&self) -> &ModulePre<Guest> {
        &self.0.pre
    }
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module")
            .field("name", self.0.manifest.name())
            .field("sha256", &self.0.sha256)
            .finish_non_exhaustive()
    }
}
