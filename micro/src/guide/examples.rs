//! The examples, each one idea in one file, to be run from the project's folder.

macro_rules! examples {
    ($($name:ident $file:literal)*) => {
        $(
            #[doc = concat!(
                "`cargo run --bin ", $file, "`\n\n```rust,ignore\n",
                include_str!(concat!("../../../examples/src/bin/", $file, ".rs")),
                "```"
            )]
            pub mod $name {}
        )*
    };
}

examples! {
    deadlines "deadlines"
    errors "errors"
    existing_tonic_service "existing-tonic-service"
    failing_node "failing-node"
    graceful_shutdown "graceful-shutdown"
    greeter_client "greeter-client"
    greeter_server "greeter-server"
    hooks "hooks"
    interceptors "interceptors"
    metadata "metadata"
    quickstart "quickstart"
    several_services "several-services"
    streaming "streaming"
}
