//! What a caller sees when a call fails, and how it tells one failure from another: by its code, by
//! the details that a handler has put into it, and for people by its text.

use std::error::Error;

use micro::{Code, Request, Response, Service, Status};
use tonic_types::{ErrorDetails, StatusExt};

micro::include_proto!("greeter.v1");

struct Greeter;

impl GreeterHandler for Greeter {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloReply>, Status> {
        match request.into_inner().name.as_str() {
            "" => {
                let mut details = ErrorDetails::new();
                details.add_bad_request_violation("name", "is empty");
                let text = "the request is not complete";
                Err(Status::with_error_details(Code::InvalidArgument, text, details))
            }
            "nobody" => Err(Status::not_found("there is nobody of that name")),
            // Its caller gets an id, under which the server's log has the panic.
            "everybody" => panic!("a handler's bug"),
            name => {
                Ok(Response::new(HelloReply { greeting: name.to_owned(), ..Default::default() }))
            }
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut service = Service::builder("greeter").registry("memory://").build().await?;
    register_greeter_handler(service.server(), Greeter);
    let client = service.client();
    let node = service.start().await?;

    let greeter = GreeterClient::new("greeter", &client);
    for name in ["", "nobody", "everybody"] {
        let call = greeter.hello(HelloRequest { name: name.to_owned() });
        let status = call.await.expect_err("each of them fails");
        println!("{:?}: {}", status.code(), status.message());
        for violation in status
            .get_error_details()
            .bad_request()
            .into_iter()
            .flat_map(|bad| &bad.field_violations)
        {
            println!("  {} {}", violation.field, violation.description);
        }
    }

    // What the client itself says: here there is nobody to ask, and no use in waiting.
    let nobody = GreeterClient::new("greter", &client);
    let status = nobody.hello(HelloRequest::default()).fail_fast().await.expect_err("a typo");
    println!("{:?}: {}", status.code(), status.message());

    node.stop().await?;
    Ok(())
}
