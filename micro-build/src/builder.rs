use std::{
    collections::{BTreeMap, HashMap},
    env,
    panic::Location,
    path::{Path, PathBuf},
};

use prost_build::{Config, Module};
use syn::{Attribute, parse::Parser};

use crate::{
    Error, clash,
    compile::{self, Compiled},
    external::Externals,
    names, output,
    service::{Generator, Sides},
    shape::Shapes,
    target::{Targets, matches_any, nearest},
};

/// Options of a build: see [`configure`](crate::configure).
///
/// What an option says is checked by [`compile_protos`](Self::compile_protos). A path given to one
/// that matches nothing there stops the build, since it would be without effect: the error names
/// the option, the path and the nearest that match. `.` is everything, be there something or not.
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
    /// Generates no handler traits: for a crate that only calls. By default both sides are
    /// generated; the last of this and [`server_only`](Self::server_only) counts.
    pub fn client_only(mut self) -> Self {
        self.sides = Sides::Client;
        self
    }

    /// Generates no client stubs: for a crate that only serves. By default both sides are
    /// generated; the last of this and [`client_only`](Self::client_only) counts.
    pub fn server_only(mut self) -> Self {
        self.sides = Sides::Server;
        self
    }

    /// Writes the generated files into this folder, by default `OUT_DIR`, where
    /// `micro::include_proto!` looks for them.
    ///
    /// A relative path is relative to the package's folder, and an empty one is that folder. A
    /// folder that does not exist, or neither this nor `OUT_DIR` being there, is an error of the
    /// build. What other builds have left in the folder stays.
    pub fn out_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.out_dir = Some(folder.into());
        self
    }

    /// Takes what lies under `proto_path` from `rust_path` and generates nothing for it, services
    /// included: `extern_path(".common.v1", "::common::v1")` for a package that another crate
    /// has generated. By default everything that the files import is generated, but for
    /// `.google.protobuf`, which is taken from `micro::prost_types`.
    ///
    /// `proto_path` is a full name with a leading dot, of a package (with those inside it), of a
    /// message (with what is nested in it), of an enum or of a service; of two that match, the
    /// longer counts. `rust_path` is that of a module in snake case, from `crate` or `::` on, or
    /// that of the item where `proto_path` is a single one. The types there must be `prost`'s, of
    /// the version that `micro` re-exports.
    ///
    /// Errors of the build: a path that is none or is empty, a `proto_path` that is given twice or
    /// that no file has, and one of Google's types that `micro` has already.
    pub fn extern_path(
        mut self,
        proto_path: impl Into<String>,
        rust_path: impl Into<String>,
    ) -> Self {
        self.extern_paths.push((proto_path.into(), rust_path.into()));
        self
    }

    /// Puts an attribute on messages, enums and oneofs, by default none:
    /// `type_attribute(".shop.v1", "#[derive(serde::Serialize)]")`.
    ///
    /// `path` is a full name with a leading dot, of a package (everything in it), a message (and
    /// what is nested in it), an enum or a oneof; or the end of one without the dot: `Order.Item`;
    /// `.` is everything. All attributes whose path matches are put there, in the order in which
    /// they were given, before those of `prost`. `attribute` may hold several.
    ///
    /// Errors of the build: an attribute that is not Rust or is empty, one that derives what the
    /// type has already (`Debug`, `Default`, and where the fields allow it `Eq`, `Hash` and
    /// `Copy`), and a path that matches no type which is generated.
    pub fn type_attribute(mut self, path: impl Into<String>, attribute: impl Into<String>) -> Self {
        self.type_attributes.push((path.into(), attribute.into()));
        self
    }

    /// Puts an attribute on fields, and on variants of enums and oneofs, by default none:
    /// `field_attribute(".shop.v1.Order.note", "#[serde(default)]")`.
    ///
    /// `path` is a full name with a leading dot, of one of them or of what holds it, or the end of
    /// one without the dot: `Order.note`; `.` is everything. A oneof is a field of its message,
    /// `Order.payment`, and its variants are inside it, `Order.payment.card`.
    ///
    /// Errors of the build: an attribute that is not Rust or is empty, and a path that matches no
    /// field which is generated.
    pub fn field_attribute(
        mut self,
        path: impl Into<String>,
        attribute: impl Into<String>,
    ) -> Self {
        self.field_attributes.push((path.into(), attribute.into()));
        self
    }

    /// Makes the matching `bytes` fields `micro::prost::bytes::Bytes`, which a decoded message
    /// shares with the buffer it came in. By default, and with no paths, they are `Vec<u8>`; paths
    /// of several calls add up.
    ///
    /// A path is a full name with a leading dot, of a field or of what holds it, or the end of one
    /// without the dot: `Order.note`; `["."]` is all of them. The field of a oneof is inside the
    /// message, and the values of a message's maps are its `value`: `Order.value`.
    ///
    /// Error of the build: a path that matches no such field.
    pub fn bytes<I>(mut self, paths: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.bytes.extend(paths.into_iter().map(Into::into));
        self
    }

    /// Writes the descriptor set (imports, comments and custom options included) to this file as
    /// well, for reflection and gateways; by default to none.
    ///
    /// A relative path is relative to the package's folder; `OUT_DIR` is in the environment of the
    /// build script. A file that cannot be written, as with an empty path, is an error of the
    /// build.
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
        let at = format!("{}:{}", caller.file(), caller.line());
        let protos = to_paths(protos);
        let includes = to_paths(includes);
        let out_dir = self.check(&at)?;
        let compiled = compile::compile(&protos, &includes, &at)?;
        for path in compiled.paths.iter().flatten() {
            println!("cargo:rerun-if-changed={}", path.display());
        }
        let externals = Externals::new(&self.extern_paths);
        let targets = Targets::new(&compiled.set, &externals);
        self.check_paths(&targets, &at)?;
        clash::check(&compiled.set, &externals, self.sides, &includes)?;
        let config = self.config(&compiled, externals, &targets);
        for (name, code) in self.generate(config, &compiled, &at)? {
            output::write(&out_dir.join(name), code.as_bytes())?;
        }
        if let Some(path) = &self.file_descriptor_set_path {
            output::write(path, &compiled.encoded)?;
        }
        Ok(())
    }

    /// What can be told of the options alone. Returns where to write.
    fn check(&self, at: &str) -> Result<PathBuf, Error> {
        for (path, attribute) in self.type_attributes.iter().chain(&self.field_attributes) {
            let fault = match Attribute::parse_outer.parse_str(attribute) {
                Ok(attributes) if attributes.is_empty() => "it is empty".to_owned(),
                Ok(_) => continue,
                Err(error) => error.to_string(),
            };
            return Err(Error::new(format!(
                "{at}: the attribute `{attribute}` for `{path}` is not Rust: {fault}; write it \
                 with its brackets, as in `#[derive(Eq)]`"
            )));
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

    /// What can be told of the options once it is known what they are for.
    fn check_paths(&self, targets: &Targets, at: &str) -> Result<(), Error> {
        let path = |(path, _): &(String, String)| path.clone();
        let types = self.type_attributes.iter().map(path);
        let fields = self.field_attributes.iter().map(path);
        let externs = self.extern_paths.iter().map(path);
        for (option, paths, kind, among) in [
            ("type_attribute", types.collect(), "message, enum or oneof", &targets.types),
            ("field_attribute", fields.collect(), "field or variant", &targets.fields),
            ("bytes", self.bytes.clone(), "field of type `bytes`", &targets.bytes),
            (
                "extern_path",
                externs.collect::<Vec<_>>(),
                "message, enum or service",
                &targets.items,
            ),
        ] {
            if let Some(path) = paths.iter().find(|path| !matches_any(path, among)) {
                return Err(Error::new(format!(
                    "{at}: the path `{path}`, given to `{option}`, matches no {kind}; correct or \
                     remove it ({})",
                    nearest(path, among)
                )));
            }
        }
        for (proto, rust) in &self.extern_paths {
            // `prost` makes snake case of each part unless the path is a single item's.
            let is_module = |(index, part): (usize, &str)| {
                let part = part.trim_start_matches("r#");
                part == names::snake(part) || index == 0 && part == "crate"
            };
            if !targets.items.contains(proto) && !rust.split("::").enumerate().all(is_module) {
                return Err(Error::new(format!(
                    "{at}: `{rust}`, given for the extern path `{proto}`, is not a path of modules \
                     that is the same wherever it is used; write one in snake case that begins \
                     with `crate` or `::`"
                )));
            }
        }
        Ok(())
    }

    fn config(&self, compiled: &Compiled, externals: Externals, targets: &Targets) -> Config {
        let mut config = Config::new();
        config.prost_path("::micro::prost").prost_types_path("::micro::prost_types");
        for (proto, rust) in &self.extern_paths {
            // Of modules `prost` makes reserved words raw by itself.
            match targets.items.contains(proto) {
                true => config.extern_path(proto, rust),
                false => config.extern_path(proto, rust.replace("r#", "")),
            };
        }
        for (path, attribute) in &self.type_attributes {
            config.type_attribute(path, attribute);
        }
        for (path, attribute) in &self.field_attributes {
            config.field_attribute(path, attribute);
        }
        for map in &targets.deprecated_maps {
            config.field_attribute(map, "#[deprecated]");
        }
        if !self.bytes.is_empty() {
            config.bytes(&self.bytes);
        }
        let shapes = Shapes::new(&compiled.set);
        config.service_generator(Box::new(Generator { shapes, externals, sides: self.sides }));
        config
    }

    /// File names and what goes into them.
    fn generate(
        &self,
        mut config: Config,
        compiled: &Compiled,
        at: &str,
    ) -> Result<BTreeMap<String, String>, Error> {
        let mut sources: HashMap<Module, (String, Vec<&str>)> = HashMap::new();
        let mut requests = Vec::new();
        for file in &compiled.set.file {
            let module = Module::from_protobuf_package_name(file.package());
            let package = || (file.package().to_owned(), Vec::new());
            sources.entry(module.clone()).or_insert_with(package).1.push(file.name());
            requests.push((module, file.clone()));
        }
        let generated = config.generate(requests).map_err(|error| {
            // The one fault left: an extern path that `prost` has for a well-known type.
            Error::new(format!(
                "{at}: {error}; remove it, since Google's types are taken from `micro::prost_types`"
            ))
        })?;
        let mut files = BTreeMap::new();
        for (module, code) in generated {
            let (package, sources) = &sources[&module];
            let name = if package.is_empty() { "_" } else { package };
            files.insert(
                format!("{name}.rs"),
                output::format(package, &code, sources, &self.type_attributes, at)?,
            );
        }
        Ok(files)
    }
}

fn to_paths(paths: &[impl AsRef<Path>]) -> Vec<PathBuf> {
    paths.iter().map(|path| path.as_ref().to_owned()).collect()
}
