//! Names that are one in Rust.

use super::*;

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
