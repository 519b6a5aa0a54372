//! What stops a build: one message that names file, line and remedy.

use std::{fs, path::Path};

use micro_build::Builder;
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// What stops the build of `a.proto` in a folder with these files, the folder being `DIR`.
#[track_caller]
fn stopped_by(files: &[(&str, &str)]) -> String {
    let folder = folder(files);
    stopped(micro_build::configure(), folder.path(), &["a.proto"], &[folder.path()])
}

#[track_caller]
fn stopped(
    builder: Builder,
    folder: &Path,
    protos: &[&str],
    includes: &[impl AsRef<Path>],
) -> String {
    let error = builder.out_dir(folder).compile_protos(protos, includes).unwrap_err();
    assert_eq!(format!("{error}"), format!("{error:?}"), "`main` prints the `Debug` of an error");
    let message = error.to_string().replace(folder.to_str().unwrap(), "DIR");
    assert_eq!(message.lines().count(), 1, "{message}");
    message
}

/// The body of a message without the file and line of the call in this test file.
#[track_caller]
fn of_the_build_script(message: &str) -> &str {
    let (at, rest) = message.split_once(": ").unwrap();
    assert!(at.starts_with(file!()) && at.len() > file!().len() + 1, "{message}");
    rest
}

const HEAD: &str = "syntax = \"proto3\";\npackage a;\nmessage M {}\n";

fn proto(rest: &str) -> String {
    format!("{HEAD}{rest}")
}

#[test]
fn a_syntax_error() {
    assert_eq!(
        stopped_by(&[("a.proto", &proto("message N {\n  string name = ;\n}\n"))]),
        "DIR/a.proto:5:17: expected an integer, but found ';'; correct the syntax there"
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
            "the file `a.proto` does not exist in {}; correct the path in the first argument of \
             `compile_protos`",
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

#[test]
fn two_rpcs_of_one_rust_name() {
    let rpcs = "service S {\n  rpc GetURL(M) returns (M);\n\n  rpc GetUrl(M) returns (M);\n}\n";
    assert_eq!(
        stopped_by(&[("a.proto", &proto(rpcs))]),
        "DIR/a.proto:7: rpc `GetUrl` of service `S` and rpc `GetURL` of service `S` (line 5) both \
         become the Rust method `get_url`; rename one of them"
    );
    let rpcs = "service S {\n  rpc New(M) returns (M);\n  rpc New_(M) returns (M);\n}\n";
    // `New_` is `new` in snake case, which is taken, as `New` is.
    assert!(stopped_by(&[("a.proto", &proto(rpcs))]).contains("the Rust method `new_`"));
}

#[test]
fn a_message_called_like_a_generated_item() {
    for (message, item) in [("GreeterClient", "client stub"), ("GreeterHandler", "handler trait")] {
        let rest = format!("message {message} {{}}\nservice Greeter {{}}\n");
        assert_eq!(
            stopped_by(&[("a.proto", &proto(&rest))]),
            format!(
                "DIR/a.proto:5: the {item} of service `Greeter` and message `{message}` (line 4) \
                 both become the Rust type `{message}`; rename one of them"
            )
        );
    }
}

#[test]
fn two_services_of_one_rust_name_in_two_files() {
    assert_eq!(
        stopped_by(&[
            ("a.proto", "import \"b.proto\";\npackage p;\nservice Fast_Mail {}\n"),
            ("b.proto", "package p;\n\n\nservice FastMail {}\n"),
        ]),
        "DIR/a.proto:3: the handler trait of service `Fast_Mail` and the handler trait of service \
         `FastMail` (DIR/b.proto:4) both become the Rust type `FastMailHandler`; rename one of them"
    );
}

#[test]
fn types_fields_and_values_of_one_rust_name() {
    for (rest, expected) in [
        ("message m {}\n", "4: message `m` and message `M` (line 3) both become the Rust type `M`"),
        (
            "enum m { ZERO = 0; }\n",
            "4: enum `m` and message `M` (line 3) both become the Rust type `M`",
        ),
        (
            "message N {\n int32 item = 1;\n oneof Item { int32 a = 2; }\n}\n",
            "6: oneof `Item` of message `N` and field `item` of message `N` (line 5) both become \
             the Rust field `item`",
        ),
        (
            "enum Mode {\n FAST = 0;\n MODE_FAST = 1;\n}\n",
            "6: value `MODE_FAST` of enum `Mode` and value `FAST` of enum `Mode` (line 5) both \
             become the Rust variant `Fast`",
        ),
        (
            "message N {\n message In {}\n message in {}\n}\n",
            "6: message `in` and message `In` (line 5) both become the Rust type `In`",
        ),
    ] {
        assert_eq!(
            stopped_by(&[("a.proto", &proto(rest))]),
            format!("DIR/a.proto:{expected}; rename one of them")
        );
    }
}

#[test]
fn a_oneof_is_a_type_beside_what_is_nested() {
    for (rest, expected) in [
        (
            "message N {\n message Item {}\n message ItemOneOf {}\n oneof item { M a = 1; }\n}\n",
            "7: oneof `item` of message `N` and message `ItemOneOf` (line 6) both become the Rust \
             type `ItemOneOf`",
        ),
        (
            "message N {\n oneof a_1 { M a = 1; }\n oneof a1 { M b = 2; }\n}\n",
            "6: oneof `a1` of message `N` and oneof `a_1` of message `N` (line 5) both become the \
             Rust type `A1`",
        ),
    ] {
        assert_eq!(
            stopped_by(&[("a.proto", &proto(rest))]),
            format!("DIR/a.proto:{expected}; rename one of them")
        );
    }
}

#[test]
fn two_accessors_of_one_name() {
    for (fields, method) in [
        ("E x = 1;\n optional int32 set_x = 2;", "set_x"),
        ("E type = 1;\n E set_type = 2;", "set_type"),
        ("repeated E x = 1;\n E push_x = 2;", "push_x"),
        ("map<string, E> x = 1;\n optional string get_x = 2;", "get_x"),
        ("map<string, E> x = 1;\n optional string insert_x = 2;", "insert_x"),
    ] {
        let rest = format!("enum E {{ A = 0; }}\nmessage N {{\n {fields}\n}}\n");
        let first = if method == "set_type" { "type" } else { "x" };
        assert_eq!(
            stopped_by(&[("a.proto", &proto(&rest))]),
            format!(
                "DIR/a.proto:7: an accessor of field `{method}` of message `N` and an accessor of \
                 field `{first}` of message `N` (line 6) both become the Rust method `{method}`; \
                 rename one of them"
            )
        );
    }
}

#[test]
fn a_map_of_enums_that_is_called_as_a_reserved_word() {
    let rest = "enum E { A = 0; }\nmessage N {\n map<string, E> type = 1;\n}\n";
    assert_eq!(
        stopped_by(&[("a.proto", &proto(rest))]),
        "DIR/a.proto:6: field `type` of message `N` is a map of enums, for which `prost` makes \
         methods with the field's name in theirs; it cannot where that is a reserved word of Rust, \
         as `type` is; rename it"
    );
}

#[test]
fn a_default_that_is_no_variant() {
    let proto = "package a;\nmessage M {\n enum E { option allow_alias = true; A = 0; B = 0; C = 1; }\n \
                 optional E a = 1 [default = C];\n optional E b = 2 [default = B];\n}\n";
    assert_eq!(
        stopped_by(&[("a.proto", proto)]),
        "DIR/a.proto:5: field `b` of message `M` has the default `B`, which is a second name of `A` \
         and no variant in Rust; write `A` for it"
    );
}

#[test]
fn names_that_are_none_in_rust() {
    for (rest, what) in [
        ("message _ {}", "message `_`"),
        ("message N { int32 __ = 1; }", "field `__` of message `N`"),
        ("message N { oneof _ { int32 a = 1; } }", "oneof `_` of message `N`"),
        ("enum E { _ = 0; }", "value `_` of enum `E`"),
        ("service _ {}", "service `_`"),
        ("service S { rpc _(M) returns (M); }", "rpc `_` of service `S`"),
    ] {
        assert_eq!(
            stopped_by(&[("a.proto", &proto(rest))]),
            format!(
                "DIR/a.proto:4: {what} has no name in Rust, which drops underscores at the ends; \
                 rename it"
            )
        );
    }
    assert!(
        stopped_by(&[("a.proto", "package a._.b;\nmessage M {}")])
            .starts_with("DIR/a.proto:1: package `a._.b` has no name in Rust")
    );
}

#[test]
fn a_package_called_as_the_module_of_a_message() {
    for package in ["a.outer", "a.outer.v1"] {
        let other = format!("package {package};\nmessage O {{}}\n");
        assert_eq!(
            stopped_by(&[
                (
                    "a.proto",
                    &proto("import \"b.proto\";\nmessage Outer {\n enum E { A = 0; }\n}\n")
                ),
                ("b.proto", &other),
            ]),
            format!(
                "DIR/a.proto:5: the module of what is nested in message `Outer` and package \
                 `{package}` (DIR/b.proto:1) both become the Rust module `a::outer`; rename one of \
                 them"
            )
        );
    }
}

#[test]
fn fields_of_one_name_in_json() {
    assert_eq!(
        stopped_by(&[("a.proto", &proto("message N {\n int32 a_b = 1;\n int32 aB = 2;\n}\n"))]),
        "DIR/a.proto:6:8: camel-case name of field 'a_b' conflicts with field 'aB'; rename or \
         remove one of the two"
    );
}

#[test]
fn two_packages_of_one_module() {
    assert_eq!(
        stopped_by(&[
            ("a.proto", "import \"b.proto\";\npackage x.FooBar;\nmessage M {}"),
            ("b.proto", "package x.foo_bar;\nmessage N {}"),
        ]),
        "DIR/a.proto:2: package `x.FooBar` and package `x.foo_bar` (DIR/b.proto:1) both become the \
         Rust module `x::foo_bar`; rename one of them"
    );
}

#[test]
fn names_that_only_look_alike_do_not_clash() {
    let folder = folder(&[(
        "a.proto",
        r#"syntax = "proto3"; package a;
           enum E { option allow_alias = true; E_A = 0; A = 0; B = 1; }
           message Greeter { message Client {} oneof client { Client a = 1; string b = 2; } }
           message Other { message Client {} optional int32 a = 1; map<string, string> labels = 2; }
           message S { string new = 1; }
           message Accessors {
             E x = 1; int32 set_x = 2; repeated E y = 3; string push_y = 4;
             E self = 5; optional int32 set_self = 6; optional S set_a = 7; optional E a = 8;
           }
           enum self { SELF_FOO = 0; FOO = 1; }
           service Greeter_ { rpc Greeter(S) returns (S); }"#,
    )]);
    // `Greeter_` clashes with nothing: `GreeterClient` is no message here.
    let builder = micro_build::configure().out_dir(folder.path());
    builder.compile_protos(&["a.proto"], &[folder.path()]).unwrap();
}

#[test]
fn what_is_not_generated_does_not_clash() {
    let folder = folder(&[
        ("a.proto", &proto("import \"b.proto\";\nmessage SHandler {}\nservice S {}\n")),
        ("b.proto", "package A;\nmessage M {}\nmessage m {}\n"),
    ]);
    let builder = micro_build::configure().client_only().extern_path(".A", "::a");
    builder.out_dir(folder.path()).compile_protos(&["a.proto"], &[folder.path()]).unwrap();
}

#[test]
fn options_that_are_not_rust() {
    let message = |builder: Builder| {
        let folder = folder(&[("a.proto", HEAD)]);
        let message = stopped(builder, folder.path(), &["a.proto"], &[folder.path()]);
        of_the_build_script(&message).to_owned()
    };
    let configure = micro_build::configure;
    assert!(
        message(configure().type_attribute("M", "derive(Eq)"))
            .starts_with("the attribute `derive(Eq)` for `M` is not Rust")
    );
    assert!(
        message(configure().field_attribute("M.x", "#[serde("))
            .starts_with("the attribute `#[serde(` for `M.x` is not Rust")
    );
    assert_eq!(
        message(configure().extern_path("b", "::b")),
        "the extern path `b` is not a full name; write it with a leading dot, as in `.common.v1`"
    );
    assert_eq!(
        message(configure().extern_path(".b", "b c")),
        "`b c`, given for the extern path `.b`, is not a path in Rust; write one such as \
         `::common::v1`"
    );
    assert_eq!(
        message(configure().extern_path(".b", "::b").extern_path(".b", "::c")),
        "the extern path `.b` is given twice; remove one"
    );
    for (attribute, fault) in [
        ("", "it is empty"),
        ("#[derive(Eq)] pub", "unexpected token"),
        ("#![allow(unused)]", "expected square brackets"),
    ] {
        let message = message(configure().type_attribute("M", attribute));
        let expected = format!("the attribute `{attribute}` for `M` is not Rust: {fault}");
        assert!(message.starts_with(&expected), "{message}");
    }
    for rust in ["super::a", "self::a", "::Bank", "::bank::V1"] {
        assert_eq!(
            message(configure().extern_path(".a", rust)),
            format!(
                "`{rust}`, given for the extern path `.a`, is not a path of modules that is the \
                 same wherever it is used; write one in snake case that begins with `crate` or `::`"
            )
        );
    }
}

#[test]
fn a_trait_that_is_derived_already() {
    let folder = folder(&[("a.proto", EVERY_KIND)]);
    let message = |path, attribute| {
        let builder = micro_build::configure().type_attribute(path, attribute);
        let message = stopped(builder, folder.path(), &["a.proto"], &[folder.path()]);
        of_the_build_script(&message).to_owned()
    };
    assert_eq!(
        message(".shop.v1.Order.Item", "#[derive(::std::hash::Hash)]"),
        "the attribute `#[derive(::std::hash::Hash)]` for `.shop.v1.Order.Item` derives `Hash` for \
         `order::Item` of package `shop.v1`, which has it already; leave it out, or give it to \
         types without"
    );
    for (path, attribute) in [
        ("shop.v1.Order", "#[derive(PartialOrd, Default)]"),
        ("Order.payment", "#[derive(Debug)]"),
        ("State", "#[derive(Default)]"),
    ] {
        assert!(message(path, attribute).contains("which has it already"), "{path}");
    }
    let builder =
        micro_build::configure().type_attribute("v1.Order", "#[derive(Eq, Hash, actix::Message)]");
    builder.out_dir(folder.path()).compile_protos(&["a.proto"], &[folder.path()]).unwrap();
}

/// A file with one item of each kind.
const EVERY_KIND: &str = r#"syntax = "proto3"; package shop.v1;
    import "google/protobuf/empty.proto";
    message Order {
      string id = 1; bytes note = 2; optional bytes seal = 6; map<string, bytes> parts = 7;
      oneof payment { string card = 3; bytes token = 4; }
      message Item { int32 count = 1; }
      enum State { OPEN = 0; PAID = 1; }
    }
    service Shop { rpc Buy(Order) returns (google.protobuf.Empty); }"#;

#[test]
fn options_whose_path_matches_nothing() {
    let message = |builder: Builder| {
        let folder = folder(&[("a.proto", EVERY_KIND)]);
        let message = stopped(builder, folder.path(), &["a.proto"], &[folder.path()]);
        of_the_build_script(&message).to_owned()
    };
    let configure = micro_build::configure;
    assert_eq!(
        message(configure().type_attribute(".shop.v2", "#[must_use]")),
        "the path `.shop.v2`, given to `type_attribute`, matches no message, enum or oneof; \
         correct or remove it (the nearest that do: `.shop.v1`, `.shop`, `.shop.v1.Order`)"
    );
    assert_eq!(
        message(configure().field_attribute("Ordr.id", "#[doc(hidden)]")),
        "the path `Ordr.id`, given to `field_attribute`, matches no field or variant; correct or \
         remove it (the nearest that do: `Order.id`, `Order.note`, `Order.seal`)"
    );
    assert_eq!(
        message(configure().bytes(["Order.id"])),
        "the path `Order.id`, given to `bytes`, matches no field of type `bytes`; correct or \
         remove it (the nearest that do: `Order.note`, `Order.seal`, `Order.token`)"
    );
    assert_eq!(
        message(configure().bytes([".shop.v1.Order.Item"])),
        "the path `.shop.v1.Order.Item`, given to `bytes`, matches no field of type `bytes`; \
         correct or remove it (the nearest that do: `.shop.v1.Order.note`, `.shop.v1.Order.seal`, \
         `.shop.v1.Order.token`)"
    );
    assert_eq!(
        message(configure().extern_path(".shop.v1.Ordr", "::shop::Order")),
        "the path `.shop.v1.Ordr`, given to `extern_path`, matches no message, enum or service; \
         correct or remove it (the nearest that do: `.shop.v1.Order`, `.shop.v1.Shop`, `.shop.v1`)"
    );
    assert_eq!(
        message(configure().extern_path(".shop", "::shop").type_attribute("Item", "#[must_use]")),
        "the path `Item`, given to `type_attribute`, matches no message, enum or oneof; correct \
         or remove it (there is none in these files)",
        "what lies under an extern path gets no code"
    );
    assert!(
        message(configure().extern_path(".google.protobuf.Empty", "::shop::Nothing"))
            .ends_with("remove it, since Google's types are taken from `micro::prost_types`")
    );
}

#[test]
fn options_whose_path_matches_something() {
    let mut builder = micro_build::configure()
        .extern_path(".shop.v1.Order.Item", "::shop::Item")
        .bytes([".", ".shop", "note", "Order.token", "shop.v1.Order.seal", ".shop.v1.Order.value"]);
    for path in [".", ".shop", "Order", ".shop.v1.Order.State", "payment", "Order.payment"] {
        builder = builder.type_attribute(path, "#[cfg(all())]");
    }
    for path in [".", ".shop", "id", "Order.payment", "payment.card", "State.PAID", "Order.parts"] {
        builder = builder.field_attribute(path, "#[cfg(all())]");
    }
    let folder = folder(&[("a.proto", EVERY_KIND)]);
    builder.out_dir(folder.path()).compile_protos(&["a.proto"], &[folder.path()]).unwrap();
    let code = fs::read_to_string(folder.path().join("shop.v1.rs")).unwrap();
    assert_eq!(code.matches("bytes::Bytes").count(), 4, "{code}");
    assert_eq!(code.matches("#[cfg(all())]").count(), 10 + 23, "{code}");
}
