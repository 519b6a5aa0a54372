//! What is wrong with the builder's options.

use super::*;

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
