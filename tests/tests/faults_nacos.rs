//! What may happen to Nacos while calls go on, as to every other registry.

#[macro_use]
mod every_fault;

use tests::nacos::Nacos;

every_server! { nacos: Nacos }
