//! What is wrong with the files.

use super::*;

#[test]
fn a_syntax_error() {
    assert_eq!(
        stopped_by(&[("a.proto", &proto("message N {\n  string name = ;\n}\n"))]),
        "DIR/a.proto:5:17: expected an integer, but found ';'; correct the syntax there"
    );
}

#[test]
fn a_file_that_ends_too_early() {
    for (rest, expected) in [
        (
            "message N {\n  M m = 1;\n\n\n",
            "5: expected a message field, oneof, reserved range, enum, message, option or '}', but \
             reached end of file; complete the declaration that the file ends in",
        ),
        (
            "import \"b.proto\"\n",
            "4: expected ';', but reached end of file; complete the declaration that the file ends \
             in",
        ),
        (
            "/* One. */\n/* Two.\n * More.\n",
            "5: expected comment terminator, but reached end of file; close the comment that begins \
             there with `*/`",
        ),
        (
            "\nimport \"b.proto",
            "5: expected string terminator, but reached end of file; close the string there",
        ),
        (
            "import \"b.proto;\n",
            "4:17: unterminated string; close the string on the line that it begins on",
        ),
    ] {
        let files = [("a.proto", "import \"c.proto\";"), ("c.proto", &proto(rest))];
        assert_eq!(stopped_by(&files), format!("DIR/c.proto:{expected}"));
        let [_, (_, proto)] = files;
        assert_eq!(stopped_by(&[("a.proto", proto)]), format!("DIR/a.proto:{expected}"));
    }
}

#[test]
fn two_packages_in_a_file() {
    assert_eq!(
        stopped_by(&[("a.proto", &proto("/*\npackage b;\n*/\npackage c;\n"))]),
        "DIR/a.proto:7: multiple package names specified; remove all but one, or split the file"
    );
}

#[test]
fn a_file_of_another_kind() {
    let folder = folder(&[]);
    fs::write(folder.path().join("a.proto"), b"// One.\n// Tw\xf6.\n").unwrap();
    let message =
        || stopped(micro_build::configure(), folder.path(), &["a.proto"], &[folder.path()]);
    assert_eq!(
        message(),
        "DIR/a.proto:2: file 'a.proto' is not valid utf-8; save the file as UTF-8"
    );
    fs::write(folder.path().join("a.proto"), "\u{feff}message M {}").unwrap();
    assert_eq!(
        message(),
        "DIR/a.proto:1:1: invalid token; save the file without the byte order mark that it begins \
         with"
    );
}

#[test]
fn an_edition() {
    let message = stopped_by(&[("a.proto", "edition = \"2023\";\n")]);
    assert!(message.starts_with("DIR/a.proto:1:1: expected"), "{message}");
    assert!(message.ends_with(
        "but found 'edition'; write `syntax = \"proto3\";` in its place, since editions are not \
         supported"
    ));
}

#[test]
fn a_type_that_is_not_defined() {
    assert_eq!(
        stopped_by(&[("a.proto", &proto("message N {\n  Missing m = 1;\n}\n"))]),
        "DIR/a.proto:5:3: name 'Missing' is not defined; correct the name, define it, or import \
         the file that defines it"
    );
}

#[test]
fn a_name_that_is_defined_twice() {
    assert_eq!(
        stopped_by(&[("a.proto", &proto("message M {}\n"))]),
        "DIR/a.proto:4:9: name 'a.M' is defined twice; rename or remove one of the two"
    );
}

#[test]
fn a_missing_import() {
    assert_eq!(
        stopped_by(&[("a.proto", "syntax = \"proto3\";\n\nimport \"b/none.proto\";\n")]),
        "DIR/a.proto:3:1: import 'b/none.proto' not found; correct the import, or add the folder \
         that holds the file to the second argument of `compile_protos` (looked in `DIR`)"
    );
}

#[test]
fn a_missing_import_with_another_near() {
    assert_eq!(
        stopped_by(&[("a.proto", "import \"c/comon.proto\";\n"), ("b/common.proto", HEAD)]),
        "DIR/a.proto:1:1: import 'c/comon.proto' not found; the nearest is 'b/common.proto'; correct \
         the import, or add the folder that holds the file to the second argument of \
         `compile_protos` (looked in `DIR`)"
    );
    let folder = folder(&[("a.proto", "import \"none.proto\";\n")]);
    let includes = [folder.path(), Path::new("tests/golden")];
    let message = stopped(micro_build::configure(), folder.path(), &["a.proto"], &includes);
    let here = std::env::current_dir().unwrap();
    let looked = format!("(looked in `DIR`, `tests/golden` in {})", here.display());
    assert!(message.ends_with(&looked), "{message}");
}

#[test]
fn an_import_on_more_than_one_line() {
    let message = stopped_by(&[("a.proto", "// none.proto\n\nimport\n  'none.proto';\n")]);
    assert!(message.starts_with("DIR/a.proto:4: import 'none.proto' not found; "), "{message}");
    let imports = "import 'b.proto';\nimport\n  'b.proto';\n";
    assert_eq!(
        stopped_by(&[("a.proto", imports), ("b.proto", "")]),
        "DIR/a.proto:3: import 'b.proto' was listed twice; remove one of the imports"
    );
}

#[test]
fn a_broken_import_is_named_and_not_its_importer() {
    assert_eq!(
        stopped_by(&[("a.proto", "import \"b/b.proto\";\n"), ("b/b.proto", "\nmessage {}\n")]),
        "DIR/b/b.proto:2:9: expected an identifier, but found '{'; correct the syntax there"
    );
}

#[test]
fn imports_in_a_circle() {
    for (b, c, expected) in [
        (
            "\nimport \"a.proto\";",
            "",
            "b.proto:2: files import each other in a circle: a.proto -> b.proto -> a.proto",
        ),
        (
            "import 'c.proto';",
            "\n\nimport public 'b.proto';",
            "c.proto:3: files import each other in a circle: b.proto -> c.proto -> b.proto",
        ),
        (
            "import \"b.proto\";",
            "",
            "b.proto:1: files import each other in a circle: b.proto -> b.proto",
        ),
    ] {
        assert_eq!(
            stopped_by(&[("a.proto", "import \"b.proto\";\n"), ("b.proto", b), ("c.proto", c)]),
            format!(
                "DIR/{expected}; move what they share into another file that each of them imports"
            )
        );
    }
}

#[test]
fn no_files_at_all() {
    let folder = folder(&[]);
    let message = stopped(micro_build::configure(), folder.path(), &[], &[folder.path()]);
    assert_eq!(
        of_the_build_script(&message),
        "there is no .proto file to compile; name at least one in the first argument of \
         `compile_protos`"
    );
}

#[test]
fn a_missing_include_folder() {
    let folder = folder(&[("a.proto", HEAD)]);
    let includes = [folder.path().to_owned(), folder.path().join("third_party")];
    let message = stopped(micro_build::configure(), folder.path(), &["a.proto"], &includes);
    assert_eq!(
        of_the_build_script(&message),
        "the include folder `DIR/third_party` does not exist; create it, or remove it from the \
         second argument of `compile_protos`"
    );
}

#[test]
fn a_missing_file() {
    let folder = folder(&[]);
    let message = stopped(micro_build::configure(), folder.path(), &["a.proto"], &[folder.path()]);
    let here = std::env::current_dir().unwrap();
    assert_eq!(
        of_the_build_script(&message),
        format!(
            "the file `a.proto` does not exist in {}, nor in an include folder (`DIR`); correct the \
             path in the first argument of `compile_protos`",
            here.display()
        )
    );
}

#[test]
fn a_missing_file_with_another_near() {
    let folder =
        folder(&[("v1/greeter.proto", HEAD), ("v2/greeter.proto", HEAD), ("v1/other.proto", HEAD)]);
    let here = std::env::current_dir().unwrap();
    for (proto, nearest) in [("v2/greter.proto", "v2/greeter"), ("v1/Greeter.proto", "v1/greeter")]
    {
        let message = stopped(micro_build::configure(), folder.path(), &[proto], &[folder.path()]);
        assert_eq!(
            of_the_build_script(&message),
            format!(
                "the file `{proto}` does not exist in {}, nor in an include folder (`DIR`); the \
                 nearest is `DIR/{nearest}.proto`; correct the path in the first argument of \
                 `compile_protos`",
                here.display()
            )
        );
    }
    let absolute = folder.path().join("v1/others.proto");
    let protos = [absolute.to_str().unwrap()];
    let message = stopped(micro_build::configure(), folder.path(), &protos, &[] as &[&Path]);
    assert_eq!(
        of_the_build_script(&message),
        "the file `DIR/v1/others.proto` does not exist; the nearest is `DIR/v1/other.proto`; correct \
         the path in the first argument of `compile_protos`"
    );
}

#[test]
fn a_missing_file_is_looked_for_in_relative_folders() {
    let folder = folder(&[]);
    let here = std::env::current_dir().unwrap();
    let protos = ["greter.proto"];
    let message = stopped(micro_build::configure(), folder.path(), &protos, &["tests/golden"]);
    assert_eq!(
        of_the_build_script(&message),
        format!(
            "the file `greter.proto` does not exist in {}, nor in an include folder \
             (`tests/golden`); the nearest is `tests/golden/greeter.proto`; correct the path in the \
             first argument of `compile_protos`",
            here.display()
        )
    );
}

#[test]
fn a_file_outside_of_the_include_folders() {
    let folder = folder(&[("a.proto", HEAD), ("inside/b.proto", HEAD)]);
    let outside = folder.path().join("a.proto");
    let includes = [folder.path().join("inside")];
    let protos = [outside.to_str().unwrap()];
    let message = stopped(micro_build::configure(), folder.path(), &protos, &includes);
    assert_eq!(
        of_the_build_script(&message),
        "the file `DIR/a.proto` is in none of the include folders (`DIR/inside`); add the folder \
         that its imports are relative to to the second argument of `compile_protos`"
    );
}

#[test]
fn an_include_folder_that_is_a_file() {
    let folder = folder(&[("a.proto", HEAD)]);
    let includes = [folder.path().join("a.proto")];
    let message = stopped(micro_build::configure(), folder.path(), &["a.proto"], &includes);
    assert_eq!(
        of_the_build_script(&message),
        "the include folder `DIR/a.proto` is no folder; name the folder that holds it in the \
         second argument of `compile_protos`"
    );
}

#[test]
fn a_file_that_is_written_otherwise_than_its_include_folder() {
    let folder = folder(&[("inside/a.proto", HEAD), ("other/a.proto", HEAD)]);
    let includes = [folder.path().join("inside"), folder.path().join("other")];
    let roundabout = folder.path().join("other/../inside/a.proto");
    let protos = [roundabout.to_str().unwrap()];
    let message = stopped(micro_build::configure(), folder.path(), &protos, &includes[..1]);
    assert_eq!(
        of_the_build_script(&message),
        "file 'DIR/other/../inside/a.proto' is not in any include path; begin its path in the \
         first argument of `compile_protos` as one of the include folders is written (`DIR/inside`)"
    );
    let hidden = folder.path().join("other/a.proto");
    let protos = [hidden.to_str().unwrap()];
    let message = stopped(micro_build::configure(), folder.path(), &protos, &includes);
    assert_eq!(
        of_the_build_script(&message),
        "path 'DIR/other/a.proto' is shadowed by 'DIR/inside/a.proto' in the include paths; put \
         the folder that holds the file first among the include folders"
    );
}

#[test]
fn a_file_by_two_names() {
    let other = "package b;\nimport \"inside/a.proto\";\nmessage N {}\n";
    let folder = folder(&[("inside/a.proto", HEAD), ("b.proto", other)]);
    let includes = [folder.path().join("inside"), folder.path().to_owned()];
    let protos = ["a.proto", "b.proto"];
    assert_eq!(
        stopped(micro_build::configure(), folder.path(), &protos, &includes),
        "DIR/inside/a.proto:3:9: name 'a.M' is already defined in file 'a.proto'; the file is read \
         under two names, `inside/a.proto` and `a.proto`, since one include folder lies in another: \
         import it by one of them, or remove one of the folders (`DIR/inside`, `DIR`)"
    );
}

#[test]
fn a_file_that_is_given_twice_is_read_once() {
    let folder = folder(&[("a.proto", HEAD)]);
    let path = folder.path().join("a.proto");
    let builder = micro_build::configure().out_dir(folder.path());
    let protos = [Path::new("a.proto"), Path::new("a.proto"), &path];
    builder.compile_protos(&protos, &[folder.path()]).unwrap();
}

#[test]
fn a_missing_folder_to_write_to() {
    let folder = folder(&[("a.proto", HEAD)]);
    let out = folder.path().join("none");
    let builder = micro_build::configure().out_dir(&out);
    let error = builder.compile_protos(&["a.proto"], &[folder.path()]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{}: cannot be written", out.join("a.rs").display())));
    assert!(error.ends_with("the folder must exist and be writable"), "{error}");
}
