//! What the paths given to options match, by `prost`'s rules; one that matches nothing would be
//! without effect, and mostly is a slip of the pen.

use std::collections::BTreeSet;

use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::Type,
};

use crate::{
    accessor::{is_map_entry, map_entry},
    external::Externals,
};

/// Full names with a leading dot, of what code is generated for unless said otherwise.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// Messages, enums and oneofs.
    pub(crate) types: Vec<String>,
    /// Fields, oneofs as such, and variants of enums and oneofs.
    pub(crate) fields: Vec<String>,
    pub(crate) bytes: Vec<String>,
    /// Maps that are deprecated, of which `prost` does not say so as it does of other fields.
    pub(crate) deprecated_maps: Vec<String>,
    /// Messages, enums and services, wherever their code is.
    pub(crate) items: Vec<String>,
}

impl Targets {
    pub(crate) fn new(set: &FileDescriptorSet, externals: &Externals) -> Self {
        let mut targets = Self::default();
        for file in &set.file {
            let scope = match file.package() {
                "" => String::new(),
                package => format!(".{package}"),
            };
            targets.add(&scope, &file.message_type, &file.enum_type, externals);
            let services = file.service.iter().map(|service| format!("{scope}.{}", service.name()));
            targets.items.extend(services);
        }
        targets
    }

    fn add(
        &mut self,
        scope: &str,
        messages: &[DescriptorProto],
        enums: &[EnumDescriptorProto],
        externals: &Externals,
    ) {
        for item in enums {
            let full = format!("{scope}.{}", item.name());
            if !externals.has(&full) {
                let values = item.value.iter().map(|value| format!("{full}.{}", value.name()));
                self.fields.extend(values);
                self.types.push(full.clone());
            }
            self.items.push(full);
        }
        for message in messages.iter().filter(|message| !is_map_entry(message)) {
            let full = format!("{scope}.{}", message.name());
            self.add(&full, &message.nested_type, &message.enum_type, externals);
            if !externals.has(&full) {
                message.field.iter().for_each(|field| self.field(&full, message, field));
                self.types.push(full.clone());
            }
            self.items.push(full);
        }
    }

    fn field(&mut self, full: &str, message: &DescriptorProto, field: &FieldDescriptorProto) {
        let name = format!("{full}.{}", field.name());
        if field.r#type() == Type::Bytes {
            self.bytes.push(name.clone());
        }
        if let Some(entry) = map_entry(message, full, field) {
            if field.options.as_ref().is_some_and(|options| options.deprecated()) {
                self.deprecated_maps.push(name.clone());
            }
            // `prost` asks for a map's values by the names in its entries.
            let mut parts = entry.field.iter().filter(|part| part.r#type() == Type::Bytes);
            self.bytes.extend(parts.next().map(|part| format!("{full}.{}", part.name())));
        }
        match field.oneof_index {
            Some(oneof) if !field.proto3_optional() => {
                let oneof = format!("{full}.{}", message.oneof_decl[oneof as usize].name());
                self.fields.push(format!("{oneof}.{}", field.name()));
                if self.types.last() != Some(&oneof) {
                    self.types.push(oneof.clone());
                    self.fields.push(oneof);
                }
            }
            _ => self.fields.push(name),
        }
    }
}

/// Whether `prost` applies what is given for `path` to the item with this full name.
fn matches(path: &str, full_name: &str) -> bool {
    let rest = match path.starts_with('.') {
        true => full_name.strip_prefix(path),
        false => full_name.strip_suffix(path),
    };
    rest.is_some_and(|rest| match path.starts_with('.') {
        true => rest.is_empty() || rest.starts_with('.'),
        false => rest.ends_with('.'),
    })
}

/// Whether the path matches one of them; `.` matches all, be there any or not.
pub(crate) fn matches_any(path: &str, targets: &[String]) -> bool {
    path == "." || targets.iter().any(|target| matches(path, target))
}

/// The paths closest to this one that match something: in words, for the end of a sentence.
pub(crate) fn nearest(path: &str, targets: &[String]) -> String {
    const SHOWN: usize = 3;
    let parts = path.split('.').count();
    let mut candidates = BTreeSet::new();
    for target in targets {
        let dots = || target.match_indices('.').map(|(dot, _)| dot);
        candidates.extend(dots().skip(1).map(|dot| &target[..dot]).chain([target.as_str()]));
        if !path.starts_with('.') {
            candidates.extend(dots().nth_back(parts - 1).map(|dot| &target[dot + 1..]));
        }
    }
    let mut candidates: Vec<_> = candidates.into_iter().collect();
    candidates.sort_by_key(|candidate| distance(path, candidate));
    match candidates.is_empty() {
        true => "there is none in these files".to_owned(),
        false => {
            let shown = candidates.iter().take(SHOWN).map(|name| format!("`{name}`"));
            format!("the nearest that do: {}", shown.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Levenshtein's: how many letters to insert, remove or replace.
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = above + 1;
        for (at, other_letter) in other.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != other_letter);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_a_leading_dot_is_a_beginning_and_one_without_an_end() {
        for (path, matched) in [
            (".", true),
            (".shop", true),
            (".shop.v1.Order", true),
            (".shop.v1.Order.note", true),
            ("note", true),
            ("Order.note", true),
            ("shop.v1.Order.note", true),
            (".shop.v", false),
            (".v1", false),
            (".shop.", false),
            ("rder.note", false),
            ("shop", false),
            ("shop.v1.Order", false),
            ("", false),
        ] {
            assert_eq!(matches_any(path, &[".shop.v1.Order.note".to_owned()]), matched, "{path}");
        }
        assert!(matches_any(".", &[]), "`.` is all, which may be none");
    }

    #[test]
    fn the_nearest_paths_are_of_the_same_form_or_only_want_the_dot() {
        let targets = [".shop.v1.Order.note", ".shop.v1.Item.name"].map(ToOwned::to_owned);
        for (path, first) in [
            (".shop.v2", ".shop.v1"),
            (".shop.v1.Ordr.note", ".shop.v1.Order.note"),
            ("Ordr.note", "Order.note"),
            ("shop.v1", ".shop.v1"),
            ("", "name"),
        ] {
            let text = nearest(path, &targets);
            let expected = format!("the nearest that do: `{first}`");
            assert!(text.starts_with(&expected), "{path}: {text}");
        }
        assert_eq!(nearest(".a", &[]), "there is none in these files");
    }

    #[test]
    fn distances_are_levenshteins() {
        for (one, other, expected) in
            [("", "", 0), ("", "ab", 2), ("kitten", "sitting", 3), ("flaw", "lawn", 2)]
        {
            assert_eq!(distance(one, other), expected, "{one} {other}");
        }
    }
}
