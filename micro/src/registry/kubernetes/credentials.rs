//! Credentials from a program that the kubeconfig names, as clouds have it. kube would run it by itself,
//! anew for each client, and at a token's end on a thread that the runtime waits for.

use std::{
    fmt,
    io::{IsTerminal, stdin},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use k8s_openapi::{ByteString, apimachinery::pkg::apis::meta::v1::Time};
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio::time::Instant;

/// Credentials are asked for anew when a fifth of their time is left, and this long before their end at
/// most.
const AHEAD: Duration = Duration::from_secs(60);

/// The least time from a run of the program to the next, while there are credentials: many programs
/// give what they gave before, until it has expired.
const PAUSE: Duration = Duration::from_secs(10);

/// What a program gave.
#[derive(Clone)]
pub(super) struct Credentials {
    /// What the kubeconfig said of it.
    program: Json,
    given: Given,
    renew_at: Option<Instant>,
}

/// What a program prints: <https://kubernetes.io/docs/reference/config-api/client-authentication.v1/>.
#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Given>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    expiration_timestamp: Option<Time>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Credentials {
    /// The program that they are to be had from, unless the kubeconfig has others as well, which
    /// come first.
    ///
    /// # Errors
    /// One of a kind that Kubernetes itself has given up.
    pub(super) fn program(auth: &AuthInfo) -> Result<Option<&ExecConfig>, String> {
        if let Some(provider) = &auth.auth_provider {
            return match provider.config.contains_key("cmd-path") {
                true => Err(format!(
                    "the kubeconfig's auth-provider `{}` runs a program in a way that Kubernetes 1.26 \
                     has dropped: write it as `exec`",
                    provider.name.escape_debug()
                )),
                false => Ok(None),
            };
        }
        let has_user = auth.username.is_some() && auth.password.is_some();
        let has_others = has_user || auth.token.is_some() || auth.token_file.is_some();
        Ok(auth.exec.as_ref().filter(|_| !has_others))
    }

    /// Runs the program, and waits until it ends.
    ///
    /// # Errors
    /// Why it has given none, in words that quote nothing of what it printed.
    pub(super) fn ask(program: &ExecConfig) -> Result<Self, String> {
        let output = command(program)?.output().map_err(|error| {
            format!("the kubeconfig's program for credentials cannot be run: {error}")
        })?;
        if !output.status.success() {
            let status = output.status;
            return Err(format!("the kubeconfig's program for credentials failed: {status}"));
        }
        let printed: ExecCredential = serde_saphyr::from_slice(&output.stdout).map_err(
            |_| "the kubeconfig's program for credentials said what is no ExecCredential",
        )?;
        let given = printed.status.filter(|given| {
            given.token.is_some()
                || given.client_certificate_data.is_some() && given.client_key_data.is_some()
        });
        let given = given.ok_or(
            "the kubeconfig's program for credentials gave neither a token nor a certificate with \
             its key",
        )?;
        let renew_at = given.expiration_timestamp.as_ref().map(|end| {
            let left = SystemTime::from(end.0).duration_since(SystemTime::now());
            let left = left.unwrap_or_default();
            Instant::now() + left.saturating_sub(AHEAD.min(left / 5)).max(PAUSE)
        });
        Ok(Self { program: described(program), given, renew_at })
    }

    /// Whether they are what this one gave.
    pub(super) fn are_of(&self, program: &ExecConfig) -> bool {
        self.program == described(program)
    }

    /// Whether the program is to be asked for others.
    pub(super) fn are_due(&self) -> bool {
        self.renew_at.is_some_and(|at| at <= Instant::now())
    }

    /// Has them due again after a while, since others could not be had.
    pub(super) fn postpone(&mut self) {
        self.renew_at = Some(Instant::now() + PAUSE);
    }

    /// Whether a server that does not take them may end the connection for an answer.
    pub(super) fn are_certificate(&self) -> bool {
        self.given.client_certificate_data.is_some()
    }

    /// Puts them in the program's place.
    pub(super) fn put(&self, auth: &mut AuthInfo) {
        let Given { token, client_certificate_data, client_key_data, .. } = &self.given;
        auth.exec = None;
        auth.token = token.clone().map(Into::into);
        if let (Some(certificate), Some(key)) = (client_certificate_data, client_key_data) {
            auth.client_certificate_data = Some(base64(certificate));
            auth.client_key_data = Some(base64(key).into());
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("renew_at", &self.renew_at).finish_non_exhaustive()
    }
}

fn command(program: &ExecConfig) -> Result<Command, String> {
    let name = program.command.as_ref();
    let name =
        name.ok_or("the kubeconfig's program for credentials has no name: write its `command`")?;
    let may_ask = program.interactive_mode != Some(ExecInteractiveMode::Never);
    let is_interactive = may_ask && stdin().is_terminal();
    let info = json!({
        "apiVersion": program.api_version,
        "kind": "ExecCredential",
        "spec": { "interactive": is_interactive, "cluster": program.cluster },
    });
    let mut command = Command::new(name);
    command.args(program.args.iter().flatten());
    for variable in program.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    command.stdin(if is_interactive { Stdio::inherit() } else { Stdio::null() });
    // What it has to say to people.
    command.stderr(Stdio::inherit());
    Ok(command)
}

fn described(program: &ExecConfig) -> Json {
    json!([program, program.cluster])
}

/// As a kubeconfig has what a program has as it is.
fn base64(data: &str) -> String {
    let data = json!(ByteString(data.as_bytes().to_vec()));
    data.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_alone_is_no_other_way_in() {
        let program = serde_json::from_value(json!({ "command": "sign-in" })).unwrap();
        let mut auth =
            AuthInfo { username: Some("u".to_owned()), exec: Some(program), ..Default::default() };
        assert!(Credentials::program(&auth).unwrap().is_some(), "kube would run it");
        auth.password = Some("p".to_owned().into());
        assert!(Credentials::program(&auth).unwrap().is_none(), "they come first");
    }
}
