//! Names that differ in the `.proto` and are one in Rust.
//!
//! `rustc` would find them too, in a file that nobody wrote; here the finding names the lines of
//! the `.proto`. Types nested in a message get a module of their own, so each scope is checked by
//! itself.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::PathBuf,
};

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet,
    ServiceDescriptorProto,
};

use crate::{
    Error,
    compile::path_of,
    external::Externals,
    locate::{self, tag},
    names::{self, ServiceNames},
};

/// Finds the first clash of a build, if there is one.
pub(crate) fn check(
    set: &FileDescriptorSet,
    externals: &Externals,
    includes: &[PathBuf],
) -> Result<(), Error> {
    let mut seen = Seen::default();
    for file in &set.file {
        Walk { file, externals, includes, seen: &mut seen }.file()?;
    }
    Ok(())
}

/// Where a Rust name lives: names of different kinds do not clash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Module,
    Type,
    Function,
    Field,
    Variant,
    Method,
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Self::Module => "module",
            Self::Type => "type",
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
    includes: &'a [PathBuf],
    seen: &'a mut Seen,
}

impl Walk<'_> {
    fn file(mut self) -> Result<(), Error> {
        let file = self.file;
        let full = match file.package() {
            "" => String::new(),
            package => format!(".{package}"),
        };
        let scope = full.split('.').map(names::snake).collect::<Vec<_>>().join(".");
        self.package(&scope)?;
        self.types(&scope, &full, &[], &file.message_type, &file.enum_type)?;
        for (index, service) in file.service.iter().enumerate() {
            if !self.externals.has(&format!("{full}.{}", service.name())) {
                self.service(&scope, service, &[tag::FILE_SERVICE, index as i32])?;
            }
        }
        Ok(())
    }

    /// Many files may share a package, but not two packages a module.
    fn package(&mut self, scope: &str) -> Result<(), Error> {
        let what = format!("package `{}`", self.file.package());
        let key = (String::new(), Kind::Module, scope.to_owned());
        match self.seen.get(&key) {
            Some(first) if first.what == what => Ok(()),
            _ => self.declare("", Kind::Module, scope, what, &[tag::FILE_PACKAGE]),
        }
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
            let is_map = message.options.as_ref().is_some_and(|options| options.map_entry());
            if !is_map && !self.externals.has(&full) {
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
                    self.declare(&fields, Kind::Field, &names::snake(field.name()), what, &path)?;
                }
            }
        }
        self.types(&inner, full, path, &message.nested_type, &message.enum_type)?;
        for (index, oneof) in message.oneof_decl.iter().enumerate() {
            let members = || message.field.iter().filter(|field| !field.proto3_optional());
            if !members().any(|field| field.oneof_index == Some(index as i32)) {
                continue;
            }
            let path = [path, &[tag::MESSAGE_ONEOF, index as i32]].concat();
            let what = format!("oneof `{}` of message `{name}`", oneof.name());
            self.declare(&fields, Kind::Field, &names::snake(oneof.name()), what, &path)?;
        }
        Ok(())
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
        self.declare(scope, Kind::Type, &rust.handler, what("handler trait"), path)?;
        self.declare(scope, Kind::Type, &rust.client, what("client stub"), path)?;
        self.declare(scope, Kind::Function, &rust.register, what("registration"), path)?;
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
        let line = locate::line(self.file, path);
        let path = path_of(self.file.name(), self.includes);
        let second = Declaration { what, path, line };
        match self.seen.entry((scope.to_owned(), kind, rust.to_owned())) {
            Entry::Vacant(vacant) => {
                vacant.insert(second);
                Ok(())
            }
            Entry::Occupied(first) => Err(report(first.get(), &second, kind, rust)),
        }
    }
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
