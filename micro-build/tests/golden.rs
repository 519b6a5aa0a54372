//! The generated code of a few representative files, as users see it.

use std::{fs, path::Path};

use micro_build::Builder;

/// Generates `proto` with these options and returns the file of `package`.
fn generate(builder: Builder, proto: &str, package: &str) -> String {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let out = tempfile::tempdir().unwrap();
    builder.out_dir(out.path()).compile_protos(&[proto], &[golden]).unwrap();
    fs::read_to_string(out.path().join(format!("{package}.rs"))).unwrap()
}

#[test]
fn a_service_of_every_kind_of_call() {
    insta::assert_snapshot!(generate(micro_build::configure(), "greeter.proto", "greeter.v1"));
}

#[test]
fn a_descriptor_grows_with_the_fields_of_its_messages_and_not_with_their_product() {
    let fields = |kind: &str| -> String {
        (1..=50).map(|number| format!("{kind} field_{number} = {number};")).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let proto = format!(
        "syntax = \"proto3\"; service S {{ rpc Call(A) returns (Outer.B); }} message A {{ {} }}
         message B {{ {} }} message Outer {{ message B {{ {} }} B b = 1; }}",
        fields("B"),
        fields("Outer"),
        fields("A"),
    );
    fs::write(folder.path().join("s.proto"), proto).unwrap();
    let builder = micro_build::configure().server_only().out_dir(folder.path());
    builder.compile_protos(&["s.proto"], &[folder.path()]).unwrap();
    let code = fs::read_to_string(folder.path().join("_.rs")).unwrap();
    // Two messages, and what is in their fields: `B` and `A`.
    assert_eq!(code.matches("TypeDescriptor::new(").count(), 2 + 4 * 50);
    assert_eq!(code.matches("&[TypeDescriptor] = ").count(), 2);
}

#[test]
fn the_server_alone() {
    let code = generate(micro_build::configure().server_only(), "greeter.proto", "greeter.v1");
    assert!(code.contains("trait GreeterHandler") && !code.contains("GreeterClient"));
}

#[test]
fn the_client_alone() {
    let code = generate(micro_build::configure().client_only(), "greeter.proto", "greeter.v1");
    assert!(!code.contains("GreeterHandler") && code.contains("struct GreeterClient"));
}

#[test]
fn a_service_without_methods_or_package_that_is_deprecated() {
    insta::assert_snapshot!(generate(micro_build::configure(), "idle.proto", "_"));
}

#[test]
fn messages_with_every_option() {
    let builder = micro_build::configure()
        .extern_path(".money", "::bank::money")
        .type_attribute(".shop.Order.Item", "#[non_exhaustive]")
        .field_attribute("Order.id", "#[doc(alias = \"number\")]")
        .bytes(["."]);
    insta::assert_snapshot!(generate(builder, "messages.proto", "shop"));
}

#[test]
fn what_lies_under_an_extern_path_gets_no_code_and_what_is_imported_does() {
    let files = |builder: Builder| {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
        let out = tempfile::tempdir().unwrap();
        builder.out_dir(out.path()).compile_protos(&["messages.proto"], &[golden]).unwrap();
        let entries = fs::read_dir(out.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(files(micro_build::configure()), ["money.rs", "shop.rs"]);
    let external = micro_build::configure().extern_path(".money", "::bank::money");
    assert_eq!(files(external), ["shop.rs"]);
}
