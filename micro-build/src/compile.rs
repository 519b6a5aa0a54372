//! `.proto` files -> descriptors, by `protox`; and what is wrong with the files, for people.

use std::{
    fs,
    path::{Path, PathBuf},
};

use miette::Diagnostic;
use prost_types::FileDescriptorSet;
use protox::Compiler;

use crate::{Error, near};

/// How `protox` ends what it says of a file that ends too early.
const END_OF_FILE: &str = ", but reached end of file";

/// The outcome of reading the `.proto` files.
pub(crate) struct Compiled {
    /// Every file, imports included, each after those that it imports.
    pub(crate) set: FileDescriptorSet,
    /// The same as bytes. Custom options are kept here and lost in `set`, whose types have no
    /// place for them.
    pub(crate) encoded: Vec<u8>,
    /// The files read, in the order of `set`; `None` for those that `protox` carries with it.
    pub(crate) paths: Vec<Option<PathBuf>>,
}

/// Compiles `protos`, looking for them and their imports in `includes`; `at` is the line of the
/// build script that calls.
pub(crate) fn compile(
    protos: &[PathBuf],
    includes: &[PathBuf],
    at: &str,
) -> Result<Compiled, Error> {
    check_arguments(protos, includes, at)?;
    let located = |error: protox::Error| Error::new(describe(&error, includes, at));
    let mut compiler = Compiler::new(includes).map_err(located)?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(protos).map_err(located)?;
    Ok(Compiled {
        set: compiler.file_descriptor_set(),
        encoded: compiler.encode_file_descriptor_set(),
        paths: compiler.files().map(|file| file.path().map(Path::to_owned)).collect(),
    })
}

/// What can be told before any file is read. These are faults of the build script, so they name
/// the line of the call.
fn check_arguments(protos: &[PathBuf], includes: &[PathBuf], at: &str) -> Result<(), Error> {
    if protos.is_empty() {
        return Err(Error::new(format!(
            "{at}: there is no .proto file to compile; name at least one in the first argument of \
             `compile_protos`"
        )));
    }
    if let Some(include) = includes.iter().find(|include| !include.is_dir()) {
        let (fault, remedy) = match include.exists() {
            true => ("is no folder", "name the folder that holds it in"),
            false => ("does not exist", "create it, or remove it from"),
        };
        return Err(Error::new(format!(
            "{at}: the include folder `{}` {fault}{}; {remedy} the second argument of \
             `compile_protos`",
            include.display(),
            relative_to(include),
        )));
    }
    for proto in protos {
        let lies_in = |include: &PathBuf| match (proto.canonicalize(), include.canonicalize()) {
            (Ok(proto), Ok(include)) => proto.starts_with(include),
            _ => false,
        };
        let found = includes.iter().any(|include| {
            lies_in(include) || proto.is_relative() && include.join(proto).is_file()
        });
        if found {
            continue;
        }
        if !proto.is_file() {
            return Err(Error::new(format!(
                "{at}: the file `{}` does not exist{}{}; {}correct the path in the first argument \
                 of `compile_protos`",
                proto.display(),
                relative_to(proto),
                match proto.is_relative() {
                    true => format!(", nor in an include folder ({})", list(includes)),
                    false => String::new(),
                },
                nearest_proto(proto, includes),
            )));
        }
        return Err(Error::new(format!(
            "{at}: the file `{}` is in none of the include folders ({}); add the folder that its \
             imports are relative to to the second argument of `compile_protos`",
            proto.display(),
            list(includes),
        )));
    }
    Ok(())
}

/// Says what a relative path is relative to: a build script runs in its package's folder.
fn relative_to(path: &Path) -> String {
    match std::env::current_dir() {
        Ok(folder) if path.is_relative() => format!(" in {}", folder.display()),
        _ => String::new(),
    }
}

/// Says which file may have been meant in the build script.
fn nearest_proto(proto: &Path, includes: &[PathBuf]) -> String {
    let beside = proto.parent().filter(|parent| *parent != Path::new(""));
    let folders: Vec<_> = includes.iter().map(PathBuf::as_path).chain(beside).collect();
    match near::proto(proto, &folders) {
        Some((folder, file)) => format!("the nearest is `{}`; ", folder.join(file).display()),
        None => String::new(),
    }
}

/// Says which file may have been meant in an import, and where those were looked for.
fn nearest_import(what: &str, includes: &[PathBuf]) -> (String, String) {
    let name = what.split('\'').nth(1).unwrap_or_default();
    let folders: Vec<_> = includes.iter().map(PathBuf::as_path).collect();
    let nearest = match near::proto(Path::new(name), &folders) {
        Some((_, file)) => format!("the nearest is '{}'; ", file.display()),
        None => String::new(),
    };
    let relative = includes.iter().find(|include| include.is_relative());
    (nearest, relative.map(|include| relative_to(include)).unwrap_or_default())
}

fn list(includes: &[PathBuf]) -> String {
    if includes.is_empty() {
        return "there are none".to_owned();
    }
    let names: Vec<_> = includes.iter().map(|include| format!("`{}`", include.display())).collect();
    names.join(", ")
}

/// `protox`'s finding with the file's path as it is on disk, and what to do about it.
///
/// The `Debug` of `protox`'s error is `file:line:column: what`, with the name by which the file is
/// imported; that is its documented form.
fn describe(error: &protox::Error, includes: &[PathBuf], at: &str) -> String {
    let what = error.to_string();
    if let Some(cycle) = what.strip_prefix("import cycle detected: ") {
        return circle(cycle, includes);
    }
    let remedy = remedy(error, &what, includes);
    let mut finding = format!("{error:?}");
    if what.contains("is not in any include path") || what.contains("is shadowed by") {
        finding = format!("{at}: {what}");
    } else if let Some(name) = error.file() {
        let path = path_of(name, includes);
        let rest = finding.strip_prefix(name).and_then(|rest| rest.strip_prefix(':'));
        finding = match (rest, line(error, &what, &path)) {
            (Some(rest), _) if rest.starts_with(|sign: char| sign.is_ascii_digit()) => {
                format!("{path}:{rest}")
            }
            (_, Some(line)) => format!("{path}:{line}: {what}"),
            _ => format!("{path}: {finding}"),
        };
    }
    format!("{finding}; {remedy}")
}

/// Says which import closes a circle, of which `protox` only says the names: the files from the
/// first that was read to the one that is imported again.
fn circle(cycle: &str, includes: &[PathBuf]) -> String {
    let names: Vec<_> = cycle.split(" -> ").collect();
    let [.., importer, imported] = names.as_slice() else {
        unreachable!("a file that imports itself is two names, `{cycle}`")
    };
    let path = path_of(importer, includes);
    let text = fs::read_to_string(&path).unwrap_or_default();
    let imports = |line: &str| line.contains("import") && line.contains(imported);
    let line = text.lines().position(imports).map_or(1, |line| line + 1);
    let start = names.iter().position(|name| name == imported).unwrap_or(0);
    format!(
        "{path}:{line}: files import each other in a circle: {}; move what they share into another \
         file that each of them imports",
        names[start..].join(" -> ")
    )
}

/// The line of a finding in the file at `path` for which `protox` gives none.
fn line(error: &protox::Error, what: &str, path: &str) -> Option<usize> {
    let bytes = fs::read(path).ok()?;
    let at = if what.contains("is not valid utf-8") {
        str::from_utf8(&bytes).err()?.valid_up_to()
    } else if what.starts_with("expected comment terminator") {
        // No comment begins within another, so it is the last one.
        bytes.windows(2).rposition(|signs| signs == b"/*")?
    } else if let Some((_, import)) = what.split_once("import '") {
        // It is on more than one line.
        let name = import.split('\'').next()?.as_bytes();
        let mut strings = bytes.windows(name.len() + 2);
        strings.rposition(|text| text[1..].starts_with(name) && b"'\"".contains(&text[0]))?
    } else if what.ends_with(END_OF_FILE) {
        bytes.trim_ascii_end().len()
    } else {
        // What there are two of: a package.
        error.labels()?.last()?.offset()
    };
    Some(1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count())
}

fn remedy(error: &protox::Error, what: &str, includes: &[PathBuf]) -> String {
    if what.contains("is not in any include path") {
        return format!(
            "begin its path in the first argument of `compile_protos` as one of the include \
             folders is written ({})",
            list(includes)
        );
    }
    if error.is_file_not_found() {
        let (nearest, relative) = nearest_import(what, includes);
        return format!(
            "{nearest}correct the import, or add the folder that holds the file to the second \
             argument of `compile_protos` (looked in {}{relative})",
            list(includes)
        );
    }
    if error.is_io() {
        return "make the file readable".to_owned();
    }
    if what.contains("is not valid utf-8") {
        return "save the file as UTF-8".to_owned();
    }
    if what.contains("was listed twice") {
        return "remove one of the imports".to_owned();
    }
    if what.contains("is shadowed by") {
        return "put the folder that holds the file first among the include folders".to_owned();
    }
    if what.contains("found 'edition'") {
        return "write `syntax = \"proto3\";` in its place, since editions are not supported"
            .to_owned();
    }
    if what == "invalid token" && error.file().is_some_and(|name| has_mark(name, includes)) {
        return "save the file without the byte order mark that it begins with".to_owned();
    }
    if let Some(expected) = what.strip_suffix(END_OF_FILE) {
        return match expected {
            "expected comment terminator" => "close the comment that begins there with `*/`",
            "expected string terminator" => "close the string there",
            _ => "complete the declaration that the file ends in",
        }
        .to_owned();
    }
    if what == "unterminated string" {
        return "close the string on the line that it begins on".to_owned();
    }
    if what == "multiple package names specified" {
        return "remove all but one, or split the file".to_owned();
    }
    if error.is_parse() {
        return "correct the syntax there".to_owned();
    }
    if what.contains("is not defined") {
        return "correct the name, define it, or import the file that defines it".to_owned();
    }
    if let Some((_, other)) = what.split_once("is already defined in file '") {
        let names = [error.file().unwrap_or_default(), other.trim_end_matches('\'')];
        let [this, other] = names.map(|name| Path::new(&path_of(name, includes)).canonicalize());
        if this.is_ok_and(|this| other.is_ok_and(|other| this == other)) {
            return format!(
                "the file is read under two names, `{}` and `{}`, since one include folder lies in \
                 another: import it by one of them, or remove one of the folders ({})",
                names[0],
                names[1],
                list(includes)
            );
        }
    }
    if ["conflicts with", "is defined twice", "is already defined"]
        .iter()
        .any(|text| what.contains(text))
    {
        return "rename or remove one of the two".to_owned();
    }
    "correct the declaration there".to_owned()
}

fn has_mark(name: &str, includes: &[PathBuf]) -> bool {
    fs::read(path_of(name, includes)).is_ok_and(|bytes| bytes.starts_with("\u{feff}".as_bytes()))
}

/// Where a file is on disk, by the name under which it is imported.
pub(crate) fn path_of(name: &str, includes: &[PathBuf]) -> String {
    let candidates = includes.iter().map(|include| include.join(name));
    let path = candidates.into_iter().find(|path| path.is_file());
    path.unwrap_or_else(|| PathBuf::from(name)).display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(files: &[(&str, &str)]) -> Compiled {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        let folder = folder.path().to_owned();
        let mut compiled =
            compile(&["a.proto".into()], std::slice::from_ref(&folder), "build.rs:1").unwrap();
        for path in compiled.paths.iter_mut().flatten() {
            *path = path.strip_prefix(&folder).unwrap().to_owned();
        }
        compiled
    }

    #[test]
    fn every_file_read_is_known_imports_included_and_embedded_ones_not() {
        let compiled = compiled(&[
            ("a.proto", "import \"b.proto\"; import \"google/protobuf/empty.proto\";"),
            ("b.proto", "import public \"c.proto\";"),
            ("c.proto", "message C {}"),
            ("unused.proto", "nonsense"),
        ]);
        let paths: Vec<_> = compiled.paths.iter().flatten().map(|path| path.to_str()).collect();
        assert_eq!(paths, [Some("c.proto"), Some("b.proto"), Some("a.proto")]);
        assert_eq!(compiled.set.file.len(), 4, "the fourth is Google's, without a path");
    }

    #[test]
    fn the_encoded_set_keeps_comments_and_custom_options() {
        use prost::Message;

        let compiled = compiled(&[(
            "a.proto",
            "import \"google/protobuf/descriptor.proto\";\n\
             extend google.protobuf.ServiceOptions { optional string team = 50000; }\n\
             // Counts.\n\
             service S { option (team) = \"blue team\"; }",
        )]);
        let holds = |text: &str| {
            compiled.encoded.windows(text.len()).any(|window| window == text.as_bytes())
        };
        assert!(holds("blue team") && holds("Counts."));
        let decoded = FileDescriptorSet::decode(compiled.encoded.as_slice()).unwrap();
        assert_eq!(decoded.file.len(), 2, "imports are in the set");
    }
}
