//! Names that differ in the `.proto` and are one in Rust, and names that are none in Rust.
//!
//! `rustc` would find them too, in a file that nobody wrote; here the finding names the lines of
//! the `.proto`. Types nested in a message get a module of their own, so each scope is checked by
//! itself.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};

use crate::{
    Error,
    accessor::{accessors, is_map_entry, map_entry},
    compile::path_of,
    external::Externals,
    locate::{self, tag},
    names::{self, ServiceNames},
    service::Sides,
};

/// Finds the first clash of a build, if there is one.
pub(crate) fn check(
    set: &FileDescriptorSet,
    externals: &Externals,
    sides: Sides,
    includes: &[PathBuf],
) -> Result<(), Error> {
    let mut seen = Seen::default();
    let mut enums = HashMap::new();
    for file in &set.file {
        let scope = if file.package().is_empty() { "" } else { "." }.to_owned() + file.package();
        collect(&scope, &file.message_type, &file.enum_type, &mut enums);
    }
    // Packages first: it is the module of a message that is told to clash with them.
    for file in &set.file {
        Walk { file, externals, sides, includes, enums: &enums, seen: &mut seen }.package()?;
    }
    for file in &set.file {
        Walk { file, externals, sides, includes, enums: &enums, seen: &mut seen }.file()?;
    }
    Ok(())
}

/// Where a Rust name lives: names of different kinds do not clash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// The module with the items of a package, which can be those of one package alone.
    Package,
    /// Any module, by its whole path.
    Module,
    Type,
    Constant,
    Function,
    Field,
    Variant,
    Method,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Package | Self::Module => "module",
            Self::Type => "type",
            Self::Constant => "constant",
            Self::Function => "function",
            Self::Field => "field",
            Self::Variant => "variant",
            Self::Method => "method",
        }
    }
}

#[derive(Debug)]
struct Declaration {
    /// ``message `Greeter` ``.
    what: String,
    path: String,
    line: i32,
}

type Seen = HashMap<(String, Kind, String), Declaration>;

struct Walk<'a> {
    file: &'a FileDescriptorProto,
    externals: &'a Externals,
    sides: Sides,
    includes: &'a [PathBuf],
    enums: &'a HashMap<String, &'a EnumDescriptorProto>,
    seen: &'a mut Seen,
}

impl Walk<'_> {
    /// The package's full name with a leading dot, and the path of its module with dots.
    fn scope(&self) -> (String, String) {
        let full = match self.file.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        let module = full.split('.').map(names::snake).collect::<Vec<_>>().join(".");
        (full, module)
    }

    /// Many files may share a package, but not two packages a module.
    fn package(mut self) -> Result<(), Error> {
        let file = self.file;
        let (full, scope) = self.scope();
        let messages = file.message_type.iter().map(DescriptorProto::name);
        let enums = file.enum_type.iter().map(EnumDescriptorProto::name);
        let services = file.service.iter().map(ServiceDescriptorProto::name);
        let mut items = messages.chain(enums).chain(services);
        if items.all(|name| self.externals.has(&format!("{full}.{name}"))) {
            return Ok(());
        }
        let path = [tag::FILE_PACKAGE];
        let what = format!("package `{}`", file.package());
        if scope.split('.').skip(1).any(str::is_empty) {
            return self.declare("", Kind::Package, "", what, &path);
        }
        let mut above = scope.as_str();
        while let Some((rest, _)) = above.rsplit_once('.') {
            let key = (String::new(), Kind::Module, above.to_owned());
            let declaration = self.declaration(what.clone(), &path);
            self.seen.entry(key).or_insert(declaration);
            above = rest;
        }
        let key = (String::new(), Kind::Package, scope.clone());
        match self.seen.get(&key) {
            Some(first) if first.what == what => Ok(()),
            _ if scope.is_empty() => Ok(()),
            _ => self.declare("", Kind::Package, &scope, what, &path),
        }
    }

    fn file(mut self) -> Result<(), Error> {
        let file = self.file;
        let (full, scope) = self.scope();
        self.types(&scope, &full, &[], &file.message_type, &file.enum_type)?;
        for (index, service) in file.service.iter().enumerate() {
            if !self.externals.has(&format!("{full}.{}", service.name())) {
                self.service(&scope, service, &[tag::FILE_SERVICE, index as i32])?;
            }
        }
        Ok(())
    }

    fn types(
        &mut self,
        scope: &str,
        full: &str,
        path: &[i32],
        messages: &[DescriptorProto],
        enums: &[EnumDescriptorProto],
    ) -> Result<(), Error> {
        let (message_tag, enum_tag) = match path {
            [] => (tag::FILE_MESSAGE, tag::FILE_ENUM),
            _ => (tag::MESSAGE_NESTED, tag::MESSAGE_ENUM),
        };
        for (index, message) in messages.iter().enumerate() {
            let full = format!("{full}.{}", message.name());
            if !is_map_entry(message) && !self.externals.has(&full) {
                let path = [path, &[message_tag, index as i32]].concat();
                self.message(scope, &full, &path, message)?;
            }
        }
        for (index, item) in enums.iter().enumerate() {
            if !self.externals.has(&format!("{full}.{}", item.name())) {
                let path = [path, &[enum_tag, index as i32]].concat();
                self.enumeration(scope, &path, item)?;
            }
        }
        Ok(())
    }

    fn message(
        &mut self,
        scope: &str,
        full: &str,
        path: &[i32],
        message: &DescriptorProto,
    ) -> Result<(), Error> {
        let name = message.name();
        let what = format!("message `{name}`");
        self.declare(scope, Kind::Type, &names::type_name(name), what, path)?;
        let inner = format!("{scope}.{}", names::snake(name));
        let fields = format!("{inner} {name}");
        for (index, field) in message.field.iter().enumerate() {
            let path = [path, &[tag::MESSAGE_FIELD, index as i32]].concat();
            let what = format!("field `{}` of message `{name}`", field.name());
            match field.oneof_index {
                Some(oneof) if !field.proto3_optional() => {
                    let scope = format!("{fields} oneof {oneof}");
                    let variant = names::type_name(field.name());
                    self.declare(&scope, Kind::Variant, &variant, what, &path)?;
                }
                _ => {
                    let rust = names::snake(field.name());
                    self.declare(&fields, Kind::Field, &rust, what.clone(), &path)?;
                    self.default(field, &what, &path)?;
                    self.accessors(&fields, full, message, field, &what, &path)?;
                }
            }
        }
        self.types(&inner, full, path, &message.nested_type, &message.enum_type)?;
        let mut has_module = !message.enum_type.is_empty()
            || message.nested_type.iter().any(|nested| !is_map_entry(nested));
        for (index, oneof) in message.oneof_decl.iter().enumerate() {
            let members = || message.field.iter().filter(|field| !field.proto3_optional());
            if !members().any(|field| field.oneof_index == Some(index as i32)) {
                continue;
            }
            has_module = true;
            let path = [path, &[tag::MESSAGE_ONEOF, index as i32]].concat();
            let what = format!("oneof `{}` of message `{name}`", oneof.name());
            let rust = names::snake(oneof.name());
            self.declare(&fields, Kind::Field, &rust, what.clone(), &path)?;
            self.declare(&inner, Kind::Type, &names::oneof(message, oneof.name()), what, &path)?;
        }
        if has_module {
            let what = format!("the module of what is nested in message `{name}`");
            self.declare("", Kind::Module, &inner, what, path)?;
        }
        Ok(())
    }

    /// The default of a proto2 enum field is written as a variant, which a second name of a number
    /// (`allow_alias`) does not get.
    fn default(&self, field: &FieldDescriptorProto, what: &str, path: &[i32]) -> Result<(), Error> {
        let values = self.enums.get(field.type_name()).map(|item| item.value.as_slice());
        let values = values.unwrap_or_default();
        let default = values.iter().find(|value| value.name() == field.default_value());
        let first = default
            .and_then(|default| values.iter().find(|value| value.number() == default.number()));
        match (default, first) {
            (Some(default), Some(first)) if default.name() != first.name() => {
                let Declaration { path, line, .. } = self.declaration(String::new(), path);
                Err(Error::new(format!(
                    "{path}:{line}: {what} has the default `{}`, which is a second name of `{}` and \
                     no variant in Rust; write `{1}` for it",
                    default.name(),
                    first.name(),
                )))
            }
            _ => Ok(()),
        }
    }

    fn accessors(
        &mut self,
        fields: &str,
        full: &str,
        message: &DescriptorProto,
        field: &FieldDescriptorProto,
        what: &str,
        path: &[i32],
    ) -> Result<(), Error> {
        let methods = accessors(message, full, field, is_proto2(self.file));
        let name = names::snake(field.name());
        if !methods.is_empty() && names::is_raw(&name) && map_entry(message, full, field).is_some()
        {
            let Declaration { path, line, .. } = self.declaration(String::new(), path);
            return Err(Error::new(format!(
                "{path}:{line}: {what} is a map of enums, for which `prost` makes methods with \
                 the field's name in theirs; it cannot where that is a reserved word of Rust, as \
                 `{name}` is; rename it"
            )));
        }
        methods.iter().try_for_each(|method| {
            self.declare(fields, Kind::Method, method, format!("an accessor of {what}"), path)
        })
    }

    fn enumeration(
        &mut self,
        scope: &str,
        path: &[i32],
        item: &EnumDescriptorProto,
    ) -> Result<(), Error> {
        let name = item.name();
        self.declare(scope, Kind::Type, &names::type_name(name), format!("enum `{name}`"), path)?;
        let variants = format!("{scope} {name}");
        let mut numbers = Vec::new();
        for (index, value) in item.value.iter().enumerate() {
            // Of two values with one number (`allow_alias`) only the first gets a variant.
            if numbers.contains(&value.number()) {
                continue;
            }
            numbers.push(value.number());
            let path = [path, &[tag::ENUM_VALUE, index as i32]].concat();
            let what = format!("value `{}` of enum `{name}`", value.name());
            let variant = names::variant(name, value.name());
            self.declare(&variants, Kind::Variant, &variant, what, &path)?;
        }
        Ok(())
    }

    fn service(
        &mut self,
        scope: &str,
        service: &ServiceDescriptorProto,
        path: &[i32],
    ) -> Result<(), Error> {
        let name = service.name();
        let rust = ServiceNames::new(name);
        let what = |item: &str| format!("the {item} of service `{name}`");
        if self.sides != Sides::Client {
            self.declare(scope, Kind::Type, &rust.handler, what("handler trait"), path)?;
            self.declare(scope, Kind::Function, &rust.register, what("registration"), path)?;
        }
        if self.sides != Sides::Server {
            self.declare(scope, Kind::Type, &rust.client, what("client stub"), path)?;
        }
        self.declare(scope, Kind::Constant, &rust.descriptor, format!("service `{name}`"), path)?;
        let methods = format!("{scope} {name}");
        for (index, method) in service.method.iter().enumerate() {
            let path = [path, &[tag::SERVICE_METHOD, index as i32]].concat();
            let what = format!("rpc `{}` of service `{name}`", method.name());
            let rust = names::method(&names::snake(method.name()));
            self.declare(&methods, Kind::Method, &rust, what, &path)?;
        }
        Ok(())
    }

    fn declare(
        &mut self,
        scope: &str,
        kind: Kind,
        rust: &str,
        what: String,
        path: &[i32],
    ) -> Result<(), Error> {
        let second = self.declaration(what, path);
        if rust.is_empty() {
            return Err(Error::new(format!(
                "{}:{}: {} has no name in Rust, which drops underscores at the ends; rename it",
                second.path, second.line, second.what,
            )));
        }
        match self.seen.entry((scope.to_owned(), kind, rust.to_owned())) {
            Entry::Vacant(vacant) => {
                vacant.insert(second);
                Ok(())
            }
            Entry::Occupied(first) => Err(report(first.get(), &second, kind, rust)),
        }
    }

    fn declaration(&self, what: String, path: &[i32]) -> Declaration {
        let line = locate::line(self.file, path);
        Declaration { what, path: path_of(self.file.name(), self.includes), line }
    }
}

/// Every enum by its full name with a leading dot.
fn collect<'a>(
    scope: &str,
    messages: &'a [DescriptorProto],
    enums: &'a [EnumDescriptorProto],
    all: &mut HashMap<String, &'a EnumDescriptorProto>,
) {
    all.extend(enums.iter().map(|item| (format!("{scope}.{}", item.name()), item)));
    for message in messages {
        let scope = format!("{scope}.{}", message.name());
        collect(&scope, &message.nested_type, &message.enum_type, all);
    }
}

fn is_proto2(file: &FileDescriptorProto) -> bool {
    file.syntax() != "proto3"
}

fn report(first: &Declaration, second: &Declaration, kind: Kind, rust: &str) -> Error {
    let there = if first.path == second.path {
        format!("line {}", first.line)
    } else {
        format!("{}:{}", first.path, first.line)
    };
    Error::new(format!(
        "{}:{}: {} and {} ({there}) both become the Rust {} `{}`; rename one of them",
        second.path,
        second.line,
        second.what,
        first.what,
        kind.text(),
        rust.trim_start_matches('.').replace('.', "::"),
    ))
}
