//! Command line flags for [`clap`], to be flattened into a program's own.
//!
//! ```
//! use clap::Parser;
//! use micro::args::ServiceArgs;
//!
//! /// Serves the greeter.
//! #[derive(Parser)]
//! struct Args {
//!     /// What to say.
//!     #[arg(long, default_value = "Hello")]
//!     greeting: String,
//!     #[command(flatten)]
//!     micro: ServiceArgs,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), micro::Error> {
//! # let parse = || Args::parse_from(["greeter", "--registry", "memory://args-docs"]);
//! # /*
//! let args = Args::parse();
//! # */
//! # let args = parse();
//! let service = micro::Service::builder("greeter")
//! #   .without_env()
//!     .args(args.micro)
//!     .build()
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A flag goes before the environment variable that sets the same, and that before the program's
//! code. `--help` names both, and the default. A value is read when the service or the client is
//! built, whose error names the flag.

use std::{collections::BTreeMap, fmt};

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Args, Command, FromArgMatches, Id, value_parser};

use crate::config::Setting;

/// The flags of a service: its own, and those of a client, which [`Service::client`] follows.
///
/// They contain [`ClientArgs`], which cannot stand beside them in one command: clap panics where a flag
/// is there twice.
///
/// [`Service::client`]: crate::Service::client
#[derive(Clone, Default)]
pub struct ServiceArgs(BTreeMap<Setting, String>);

/// The flags of a client that is no service: `--registry`, `--client-request-timeout`,
/// `--client-retries`.
#[derive(Clone, Default)]
pub struct ClientArgs(BTreeMap<Setting, String>);

fn service_settings() -> impl Iterator<Item = Setting> {
    Setting::ALL.into_iter()
}

fn client_settings() -> impl Iterator<Item = Setting> {
    [Setting::Registry, Setting::ClientRequestTimeout, Setting::ClientRetries].into_iter()
}

macro_rules! args {
    ($args:ident, $settings:expr) => {
        impl $args {
            /// By which clap tells whether an `Option` of these was given; no name that a program's
            /// own struct has.
            const GROUP: &str = concat!("micro::args::", stringify!($args));

            pub(crate) fn into_flags(self) -> BTreeMap<Setting, String> {
                self.0
            }
        }

        impl fmt::Debug for $args {
            /// Names what is set, and shows no value: the registry's may have a password in it.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_set().entries(self.0.keys()).finish()
            }
        }

        impl Args for $args {
            fn group_id() -> Option<Id> {
                Some(Self::GROUP.into())
            }

            fn augment_args(command: Command) -> Command {
                let args: Vec<_> = $settings.filter_map(arg).collect();
                let ids = args.iter().map(|arg| arg.get_id().clone());
                let group = ArgGroup::new(Self::GROUP).multiple(true).args(ids);
                command.group(group).args(args)
            }

            fn augment_args_for_update(command: Command) -> Command {
                Self::augment_args(command)
            }
        }

        impl FromArgMatches for $args {
            fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
                let mut args = Self::default();
                args.update_from_arg_matches(matches)?;
                Ok(args)
            }

            fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
                self.0.extend($settings.filter_map(|it| Some((it, value(it, matches)?))));
                Ok(())
            }
        }
    };
}

args!(ServiceArgs, service_settings());
args!(ClientArgs, client_settings());

/// The flag of a setting that has one.
fn arg(setting: Setting) -> Option<Arg> {
    let entry = setting.entry();
    let default = match setting {
        // No program is without.
        Setting::ServerName => entry.default.to_owned(),
        _ => format!("the program's, else {}", entry.default),
    };
    let help = format!("{} [env: {}] [default: {default}]", entry.help, entry.variable);
    let arg = Arg::new(entry.variable)
        .long(entry.flag?)
        .value_name(entry.placeholder)
        .value_parser(value_parser!(String))
        // `-5` is no flag, and the error for it says what to write.
        .allow_hyphen_values(matches!(entry.placeholder, "DURATION" | "NUMBER"))
        .help(help);
    Some(if is_repeated(setting) { arg.action(ArgAction::Append) } else { arg })
}

/// What was written, of a flag that may be repeated with the commas that it could have had instead.
fn value(setting: Setting, matches: &ArgMatches) -> Option<String> {
    setting.entry().flag?;
    let values: Vec<_> = matches.get_many::<String>(setting.entry().variable)?.cloned().collect();
    Some(values.join(","))
}

/// Whether a flag may come more than once, as go-micro has it.
fn is_repeated(setting: Setting) -> bool {
    setting == Setting::ServerMetadata
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::{Client, Service};

    #[derive(Parser)]
    struct Program {
        #[arg(long)]
        name: String,
        #[command(flatten)]
        micro: ServiceArgs,
    }

    fn parsed(flags: &[&str]) -> ServiceArgs {
        let program = ["program", "--name", "world"];
        let program = Program::try_parse_from(program.iter().chain(flags)).expect("flags");
        assert_eq!(program.name, "world", "the program's own");
        program.micro
    }

    #[test]
    fn clap_finds_no_fault_with_the_flags() {
        use clap::CommandFactory;
        Program::command().debug_assert();
        ClientArgs::augment_args(Command::new("program")).debug_assert();
    }

    #[test]
    fn the_flags_may_be_optional() {
        #[derive(Parser)]
        struct Program {
            #[command(flatten)]
            service: Option<ServiceArgs>,
        }
        #[derive(Parser)]
        struct ClientProgram {
            #[command(flatten)]
            client: Option<ClientArgs>,
        }
        let service = |flags: &[&str]| Program::try_parse_from(flags).expect("flags").service;
        assert!(service(&["program"]).is_none());
        assert_eq!(service(&["program", "--server-id=a"]).expect("one is given").0.len(), 1);
        let client = |flags: &[&str]| ClientProgram::try_parse_from(flags).expect("flags").client;
        assert!(client(&["program"]).is_none());
        assert_eq!(client(&["program", "--registry=memory"]).expect("one is given").0.len(), 1);
    }

    #[tokio::test]
    async fn a_negative_number_gets_our_error() {
        for (flag, text) in [
            ("--register-ttl", "--register-ttl is '-5': write a duration over 0"),
            ("--register-interval", "--register-interval is '-5': write a duration over 0"),
            ("--client-request-timeout", "--client-request-timeout is '-5': write a duration over"),
            ("--client-retries", "--client-retries is '-5': write a number"),
        ] {
            let builder = Service::builder("greeter").registry("memory://args");
            let error = builder.args(parsed(&[flag, "-5"])).build().await.expect_err(flag);
            assert!(error.to_string().starts_with(text), "{error}");
        }
    }

    #[test]
    fn help_says_that_the_programs_code_may_have_set_it() {
        use clap::CommandFactory;
        let help = Program::command().render_help().to_string();
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for text in [
            "[env: MICRO_SERVER_VERSION] [default: the program's, else latest]",
            "[env: MICRO_SERVER_NAME] [default: the program's choice]",
            "with its addresses in MICRO_REGISTRY_ADDRESS [env: MICRO_REGISTRY]",
            "over mDNS 120 s, whatever this is [env: MICRO_REGISTER_TTL]",
        ] {
            assert!(help.contains(text), "{text} is not in {help}");
        }
    }

    #[tokio::test]
    async fn a_services_flags_go_before_its_code() {
        let flags = [
            "--registry=memory://args",
            "--server-name=other",
            "--server-id=other-1",
            "--server-metadata=a=1,b=2",
            "--server-metadata=c=3",
            "--client-retries=0",
        ];
        let builder = Service::builder("greeter").registry("nowhere://").id("greeter-1");
        let service = builder.args(parsed(&flags)).build().await.expect("a service");
        assert_eq!((service.name(), service.id()), ("other", "other-1"));
        let client = format!("{:?}", service.client());
        assert!(
            client.contains("memory://args") && client.contains("max_attempts: 1,"),
            "{client}"
        );
        let service = format!("{service:?}");
        assert!(service.contains(r#"{"a": "1", "b": "2", "c": "3"}"#), "{service}");
    }

    #[tokio::test]
    async fn the_error_for_a_flags_value_names_the_flag() {
        for (flag, text) in [
            ("--register-ttl=soon", "--register-ttl is 'soon': write a duration"),
            ("--register-interval=8s", "the interval from --register-interval"),
            ("--server-id=a b", "(from --server-id)"),
            ("--registry=nowhere://root:secret@h", "(from --registry)"),
        ] {
            let builder = Service::builder("greeter").registry("memory://args");
            let error = builder.args(parsed(&[flag])).build().await.expect_err(flag).to_string();
            assert!(error.contains(text) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_clients_flags_are_taken() {
        let command = ClientArgs::augment_args(Command::new("program"));
        let flags = ["program", "--registry=memory", "--client-request-timeout=1m30s"];
        let matches = command.try_get_matches_from(flags).expect("flags");
        let args = ClientArgs::from_arg_matches(&matches).expect("strings");
        assert!(!format!("{args:?}").contains("memory"), "no value is shown: {args:?}");
        let client = Client::builder().args(args).build().expect("a client");
        let client = format!("{client:?}");
        assert!(
            client.contains("memory://") && client.contains("request_timeout: 90s"),
            "{client}"
        );
    }
}
