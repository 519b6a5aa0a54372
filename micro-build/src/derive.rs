//! Traits that an attribute of the build script derives beside `prost`, which rustc would refuse in
//! a file that nobody wrote.

use syn::{Attribute, Item, Path, Token, punctuated::Punctuated};

/// The first type that has a trait derived twice: its path in Rust, and the trait.
pub(crate) fn twice(items: &[Item]) -> Option<(String, String)> {
    items.iter().find_map(|item| match item {
        Item::Struct(item) => Some((item.ident.to_string(), repeated(&item.attrs)?)),
        Item::Enum(item) => Some((item.ident.to_string(), repeated(&item.attrs)?)),
        Item::Mod(module) => {
            let (path, name) = twice(&module.content.as_ref()?.1)?;
            Some((format!("{}::{path}", module.ident), name))
        }
        _ => None,
    })
}

fn repeated(attributes: &[Attribute]) -> Option<String> {
    const STANDARD: [&str; 9] =
        ["Clone", "Copy", "Debug", "Default", "Eq", "Hash", "Ord", "PartialEq", "PartialOrd"];
    let mut seen: Vec<String> = Vec::new();
    let derives = attributes.iter().filter(|attribute| attribute.path().is_ident("derive"));
    for attribute in derives {
        let paths = attribute.parse_args_with(Punctuated::<Path, Token![,]>::parse_terminated);
        for path in paths.into_iter().flatten() {
            let is_prosts = path.segments.iter().any(|part| part.ident == "prost");
            let name = path.segments.last()?.ident.to_string();
            let traits: &[&str] = match name.as_str() {
                "Message" if is_prosts => &["Debug", "Default"],
                "Oneof" if is_prosts => &["Debug"],
                "Enumeration" if is_prosts => &["Default"],
                // Another's `Message` may stand beside `prost`'s.
                name if STANDARD.contains(&name) => &[name],
                _ => continue,
            };
            for name in traits {
                if seen.iter().any(|earlier| earlier == name) {
                    return Some((*name).to_owned());
                }
                seen.push((*name).to_owned());
            }
        }
    }
    None
}
