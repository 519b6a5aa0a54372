use std::{
    collections::{BTreeMap, HashMap},
    env,
    panic::Location,
    path::{Path, PathBuf},
};

use prost_build::{Config, Module};

use crate::{
    Error, clash,
    compile::{self, Compiled},
    external::Externals,
    output,
    service::{Generator, Sides},
    shape::Shapes,
};

/// Options of a build: see [`configure`](crate::configure).
#[derive(Debug, Clone, Default)]
#[must_use = "nothing is generated before `compile_protos`"]
pub struct Builder {
    sides: Sides,
    out_dir: Option<PathBuf>,
    extern_paths: Vec<(String, String)>,
    type_attributes: Vec<(String, String)>,
    field_attributes: Vec<(String, String)>,
    bytes: Vec<String>,
    file_descriptor_set_path: Option<PathBuf>,
}

impl Builder {
    /// Generates no handler traits: for a crate that only calls. Off unless called; the last of
    /// this and [`server_only`](Self::server_only) counts.
    pub fn client_only(mut self) -> Self {
        self.sides = Sides::Client;
        self
    }

    /// Generates no client stubs: for a crate that only serves. Off unless called; the last of
    /// this and [`client_only`](Self::client_only) counts.
    pub fn server_only(mut self) -> Self {
        self.sides = Sides::Server;
        self
    }

    /// Writes the generated files into this folder, which must exist, and not into `OUT_DIR`,
    /// where `micro::include_proto!` looks for them.
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(folder.into());
        self
    }

    /// Takes what lies under `proto_path` from `rust_path` and generates nothing for it, services
    /// included: `extern_path(".common.v1", "::common::v1")` for a package that another crate
    /// has generated.
    ///
    /// The first path is a full name with a leading dot, of a package or of a single type. The
    /// types there must be `prost`'s of the version that `micro` re-exports. `.google.protobuf`
    /// is taken from `micro::prost_types` without being told.
    pub fn extern_path(
        mut self,
        proto_path: impl Into<String>,
        rust_path: impl Into<String>,
    ) -> Self {
        self.extern_paths.push((proto_path.into(), rust_path.into()));
        self
    }

    /// Puts an attribute on messages, enums and oneofs:
    /// `type_attribute(".shop.v1", "#[derive(serde::Serialize)]")`.
    ///
    /// `path` is a full name with a leading dot, of a package (everything in it), a message (and
    /// what is nested in it), an enum or a oneof; `.` is everything.
    pub fn type_attribute(mut self, path: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.type_attributes.push((path.into(), attribute.into()));
        self
    }

    /// Puts an attribute on fields, and on variants of enums and oneofs:
    /// `field_attribute("shop.v1.Order.note", "#[serde(default)]")`.
    ///
    /// `path` is a full name with a leading dot, or the end of one without: `Order.note`.
    pub fn field_attribute(
        mut self,
        path: impl Into<String>,
        attribute: impl Into<String>,
    ) -> Self {
        self.field_attributes.push((path.into(), attribute.into()));
        self
    }

    /// Makes the matching `bytes` fields `bytes::Bytes`, which a decoded message shares with the
    /// buffer it came in, and not `Vec<u8>`. `["."]` is all of them.
    ///
    /// The type is named by `micro::prost::bytes::Bytes`.
    pub fn bytes<I>(mut self, paths: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.bytes.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Writes the descriptor set (imports, comments and custom options included) to this file as
    /// well, for reflection and gateways. A relative path is relative to the package's folder;
    /// `OUT_DIR` is in the environment of the build script.
    pub fn file_descriptor_set_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.file_descriptor_set_path = Some(path.into());
        self
    }

    /// Generates the code of `protos` and of what they import: a file for each package.
    ///
    /// `protos` and `includes` are as in [`compile_protos`](crate::compile_protos).
    ///
    /// # Errors
    /// As in [`compile_protos`](crate::compile_protos).
    #[track_caller]
    pub fn compile_protos(
        self,
        protos: &[impl AsRef<Path>],
        includes: &[impl AsRef<Path>],
    ) -> Result<(), Error> {
        let caller = Location::caller();
        let protos = to_paths(protos);
        let includes = to_paths(includes);
        let out_dir = self.check(caller)?;
        let compiled = compile::compile(&protos, &includes, caller)?;
        for path in compiled.paths.iter().flatten() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
        for (name, code) in self.generate(&compiled, &includes)? {
            output::write(&out_dir.join(name), code.as_bytes())?;
        }
        if let Some(path) = &self.file_descriptor_set_path {
            output::write(path, &compiled.encoded)?;
        }
        Ok(())
    }

    /// What can be told of the options alone. Returns where to write.
    fn check(&self, caller: &Location<'_>) -> Result<PathBuf, Error> {
        let at = format!("{}:{}", caller.file(), caller.line());
        for (path, attribute) in self.type_attributes.iter().chain(&self.field_attributes) {
            if let Err(error) = syn::parse_str::<syn::ItemStruct>(&format!("{attribute} struct S;"))
            {
                return Err(Error::new(format!(
                    "{at}: the attribute `{attribute}` for `{path}` is not Rust: {error}; write it \
                     with its brackets, as in `#[derive(Eq)]`"
                )));
            }
        }
        for (index, (proto, rust)) in self.extern_paths.iter().enumerate() {
            let name = proto.strip_prefix('.');
            if !name.is_some_and(|name| name.split('.').all(|part| !part.is_empty())) {
                return Err(Error::new(format!(
                    "{at}: the extern path `{proto}` is not a full name; write it with a leading \
                     dot, as in `.common.v1`"
                )));
            }
            if syn::parse_str::<syn::Path>(rust).is_err() {
                return Err(Error::new(format!(
                    "{at}: `{rust}`, given for the extern path `{proto}`, is not a path in Rust; \
                     write one such as `::common::v1`"
                )));
            }
            if self.extern_paths[..index].iter().any(|(earlier, _)| earlier == proto) {
                return Err(Error::new(format!(
                    "{at}: the extern path `{proto}` is given twice; remove one"
                )));
            }
        }
        let out_dir = self.out_dir.clone().or_else(|| env::var_os("OUT_DIR").map(PathBuf::from));
        out_dir.ok_or_else(|| {
            Error::new(format!(
                "{at}: there is no folder to write to: `OUT_DIR` is not set outside of a build \
                 script; set one with `out_dir`"
            ))
        })
    }

    /// File names and what goes into them.
    fn generate(
        &self,
        compiled: &Compiled,
        includes: &[PathBuf],
    ) -> Result<BTreeMap<String, String>, Error> {
        let externals = Externals::new(&self.extern_paths);
        clash::check(&compiled.set, &externals, self.sides, includes)?;
        let mut sources: HashMap<Module, (String, Vec<&str>)> = HashMap::new();
        let mut requests = Vec::new();
        for file in &compiled.set.file {
            let module = Module::from_protobuf_package_name(file.package());
            let package = || (file.package().to_owned(), Vec::new());
            sources.entry(module.clone()).or_insert_with(package).1.push(file.name());
            requests.push((module, file.clone()));
        }
        let generated = self
            .config(compiled, externals)
            .generate(requests)
            .map_err(|error| Error::new(format!("no code can be generated: {error}")))?;
        let mut files = BTreeMap::new();
        for (module, code) in generated {
            let (package, sources) = &sources[&module];
            let name = if package.is_empty() { "_" } else { package };
            files.insert(format!("{name}.rs"), output::format(package, &code, sources)?);
        }
        Ok(files)
    }

    fn config(&self, compiled: &Compiled, externals: Externals) -> Config {
        let mut config = Config::new();
        config.prost_path("::micro::prost").prost_types_path("::micro::prost_types");
        for (proto, rust) in &self.extern_paths {
            config.extern_path(proto, rust);
        }
        for (path, attribute) in &self.type_attributes {
            config.type_attribute(path, attribute);
        }
        for (path, attribute) in &self.field_attributes {
            config.field_attribute(path, attribute);
        }
        if !self.bytes.is_empty() {
            config.bytes(&self.bytes);
        }
        let shapes = Shapes::new(&compiled.set);
        config.service_generator(Box::new(Generator { shapes, externals, sides: self.sides }));
        config
    }
}

fn to_paths(paths: &[impl AsRef<Path>]) -> Vec<PathBuf> {
    paths.iter().map(|path| path.as_ref().to_owned()).collect()
}
