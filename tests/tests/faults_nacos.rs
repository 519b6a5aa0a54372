//! What may happen to Nacos while calls go on, as to every other registry.

#[macro_use]
mod every_fault;

use tests::nacos::Nacos;

every_server! {
    nacos: Nacos, not {
        every_lease_lost: "the lease is the connection, which is cut in a fault of its own"
        restored_to_an_older_state: "of ephemeral instances Nacos keeps nothing"
        credentials_expired_and_renewed:
            "rnacos believes in a token until its time is over, and has no way to end it"
    };
}
