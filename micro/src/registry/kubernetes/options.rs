//! What the URL, and the pod's environment, say of the cluster.

use std::{env, path::PathBuf};

use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use super::{
    super::{format::Format, url::Url},
    target::{Target, is_label},
};
use crate::Error;

/// Set in every pod.
const SERVICE_HOST: &str = "KUBERNETES_SERVICE_HOST";

/// The options that other nodes are found with. Pods are read only with `format`.
const TELLING: [(&str, &str); 3] = [("kubeconfig", ""), ("context", ""), ("format", "")];

/// Where to ask, for what, and who we are.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// `kubernetes://shop` or `kubernetes://shop/greeter:grpc`, with what is [`TELLING`].
    pub(super) name: String,
    pub(super) namespace: String,
    /// The one Service that there is, if the URL names it.
    pub(super) target: Option<Target>,
    /// The formats whose records at pods are read too.
    pub(super) read: Vec<Format>,
    /// Those that our own pod's are written in.
    pub(super) written: Vec<Format>,
    /// Our own pod.
    pub(super) pod: Option<OwnPod>,
    source: Source,
}

/// A pod, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnPod {
    pub(super) namespace: String,
    pub(super) name: String,
}

/// Where the cluster's address and our credentials are. Read anew for every client, as they change
/// while a service runs.
#[derive(Debug, Clone)]
enum Source {
    /// The service account's files, and the environment.
    Pod,
    Kubeconfig {
        file: Option<PathBuf>,
        context: Option<String>,
    },
}

impl Options {
    pub(super) fn of(url: &Url) -> Result<Self, Error> {
        let environment = |variable| env::var(variable).ok().filter(|value| !value.is_empty());
        Self::with(url, environment)
    }

    fn with(
        url: &Url,
        environment: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Self, Error> {
        url.without_user()?;
        url.only_keys(&["context", "format", "kubeconfig", "pod"])?;
        let option = |key| match url.option(key) {
            Some("") => Err(url.error(format_args!("option `{key}` is empty"))),
            value => Ok(value.map(str::to_owned)),
        };
        let (file, context) = (option("kubeconfig")?.map(PathBuf::from), option("context")?);
        let source = match (file, context) {
            (None, None) if environment(SERVICE_HOST).is_some() => Source::Pod,
            (file, context) => Source::Kubeconfig { file, context },
        };
        // Slices have no records; without the option, those at pods are not read.
        let written = Format::of(url, &[Format::Micro, Format::Kratos])?;
        let read = url.option("format").map_or_else(Vec::new, |_| written.clone());
        let target = match url.path.as_str() {
            "" => None,
            path => {
                let target = Target::parse(path).and_then(|it| it.check().map(|()| it));
                Some(target.map_err(|why| url.error(why))?)
            }
        };
        let own_namespace = source.check().map_err(|why| url.error(why))?;
        let namespace = match url.hosts.as_str() {
            "" => own_namespace.clone(),
            namespace => namespace.to_owned(),
        };
        if !is_label(&namespace) {
            return Err(url.error(
                "it names no namespace; write `kubernetes://NAMESPACE`, or `kubernetes://` for our own",
            ));
        }
        let pod = match option("pod")? {
            Some(name) => Some((name, Some(namespace.clone()))),
            None => environment("POD_NAME").map(|name| (name, environment("POD_NAMESPACE"))),
        };
        let pod = pod.map(|(name, namespace)| {
            let namespace = namespace.unwrap_or(own_namespace);
            OwnPod { namespace, name }
        });
        let name = match &target {
            Some(target) => url.name(format_args!("kubernetes://{namespace}/{target}"), &TELLING),
            None => url.name(format_args!("kubernetes://{namespace}"), &TELLING),
        };
        Ok(Self { name, namespace, target, read, written, pod, source })
    }

    /// Those of a cluster that is not asked.
    #[cfg(test)]
    pub(super) fn of_nowhere() -> Self {
        let (name, namespace) = ("kubernetes://shop".to_owned(), "shop".to_owned());
        let (read, written) = (Vec::new(), vec![Format::Micro]);
        Self { name, namespace, target: None, read, written, pod: None, source: Source::Pod }
    }

    /// What two URLs of one registry have in common.
    pub(super) fn identity(&self) -> String {
        format!("kubernetes {self:?}")
    }

    /// What a client is made of, as it stands now.
    ///
    /// # Errors
    /// Why there is none to be had.
    pub(super) async fn config(&self) -> Result<Config, String> {
        self.source.config().await
    }
}

impl Source {
    fn kubeconfig(file: Option<&PathBuf>) -> Result<Kubeconfig, String> {
        match file {
            Some(file) => Kubeconfig::read_from(file).map_err(|error| {
                let why = describe(&error);
                format!("option `kubeconfig`: cannot use {}: {why}", file.display())
            }),
            None => Kubeconfig::read().map_err(|error| {
                format!(
                    "no cluster is known: this is no pod ({SERVICE_HOST} is not set), and the \
                     kubeconfig cannot be used ({}); write `?kubeconfig=FILE`",
                    describe(&error)
                )
            }),
        }
    }

    /// Whether it can be used; and the namespace that is ours: the pod's, or the context's.
    fn check(&self) -> Result<String, String> {
        let (file, context) = match self {
            Self::Pod => {
                let config = Config::incluster().map_err(|error| in_pod(&error))?;
                return Ok(config.default_namespace.trim().to_owned());
            }
            Self::Kubeconfig { file, context } => (file.as_ref(), context),
        };
        let kubeconfig = Self::kubeconfig(file)?;
        let context = context.as_ref().or(kubeconfig.current_context.as_ref());
        let Some(context) = context.filter(|context| !context.is_empty()) else {
            return Err("the kubeconfig has no current context; write `?context=NAME`".to_owned());
        };
        let Some(named) = kubeconfig.contexts.iter().find(|it| it.name == *context) else {
            let names: Vec<_> = kubeconfig.contexts.iter().map(|it| it.name.as_str()).collect();
            return Err(format!(
                "the kubeconfig has no context `{}`; it has: {}",
                context.escape_debug(),
                names.join(", ").escape_debug()
            ));
        };
        let context = named.context.as_ref();
        let cluster = context.map(|context| &context.cluster);
        let cluster = kubeconfig.clusters.iter().find(|it| Some(&it.name) == cluster);
        let proxy = cluster.and_then(|it| it.cluster.as_ref()?.proxy_url.as_ref());
        if proxy.is_some_and(|proxy| !proxy.is_empty()) {
            return Err(format!(
                "the kubeconfig's cluster `{}` is behind a proxy (`proxy-url`), and kubernetes:// \
                 goes through none: use a context whose server is reached directly",
                cluster.map(|it| &*it.name).unwrap_or_default().escape_debug()
            ));
        }
        let namespace = context.and_then(|context| context.namespace.clone());
        Ok(namespace.unwrap_or_else(|| "default".to_owned()))
    }

    async fn config(&self) -> Result<Config, String> {
        match self {
            Self::Pod => Config::incluster().map_err(|error| in_pod(&error)),
            Self::Kubeconfig { file, context } => {
                let kubeconfig = Self::kubeconfig(file.as_ref())?;
                let options =
                    KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config
                    .map_err(|error| format!("the kubeconfig cannot be used: {}", describe(&error)))
            }
        }
    }
}

/// The error in words.
fn describe(error: &KubeconfigError) -> String {
    // It quotes the lines around the fault, and in them may be a token.
    if let KubeconfigError::Parse(error) = error {
        return error.location().map_or_else(
            || "it is no kubeconfig".to_owned(),
            |at| format!("it is no kubeconfig: line {}, column {}", at.line(), at.column()),
        );
    }
    error.to_string()
}

fn in_pod(error: &kube::config::InClusterError) -> String {
    format!("the service account's files in this pod cannot be used: {error}")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    const KUBECONFIG: &str = "
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}]
users: [{name: u, user: {token: s3cret}}]
contexts:
- {name: plain, context: {cluster: c, user: u}}
- {name: shop, context: {cluster: c, user: u, namespace: shop}}
current-context: plain
";

    fn file(name: &str, text: &str) -> String {
        let path = env::temp_dir().join(format!("micro-{}-{name}", std::process::id()));
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn options(url: &str, environment: &[(&str, &str)]) -> Result<Options, String> {
        let value = |variable: &'static str| {
            let found = environment.iter().find(|(name, _)| *name == variable);
            found.map(|(_, value)| (*value).to_owned())
        };
        let url = Url::parse(url).unwrap();
        Options::with(&url, value).map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_namespace_is_the_urls_or_that_of_the_context() {
        let file = file("namespaces", KUBECONFIG);
        for (url, name) in [
            ("kubernetes://", "kubernetes://default"),
            ("kubernetes://prod", "kubernetes://prod"),
            ("kubernetes:///greeter:grpc", "kubernetes://default/greeter:grpc"),
            ("kubernetes://prod/greeter", "kubernetes://prod/greeter"),
        ] {
            let read = options(&format!("{url}?kubeconfig={file}"), &[]).unwrap();
            assert_eq!(read.name, format!("{name}?kubeconfig={file}"));
            assert!(read.read.is_empty() && read.pod.is_none());
            assert_eq!(read.written, [Format::Micro]);
        }
        let url = format!("kubernetes://?kubeconfig={file}&context=shop&format=micro");
        let read = options(&url, &[("POD_NAME", "greeter-1")]).unwrap();
        assert_eq!(
            read.name,
            format!("kubernetes://shop?kubeconfig={file}&context=shop&format=micro")
        );
        assert_eq!((&read.read, &read.written), (&vec![Format::Micro], &vec![Format::Micro]));
        let pod = |namespace: &str, name: &str| {
            Some(OwnPod { namespace: namespace.to_owned(), name: name.to_owned() })
        };
        assert_eq!(read.pod, pod("shop", "greeter-1"));
        let environment = [("POD_NAME", "a"), ("POD_NAMESPACE", "b")];
        assert_eq!(options(&url, &environment).unwrap().pod, pod("b", "a"));
        let own = format!("{url}&pod=c");
        assert_eq!(options(&own, &environment).unwrap().pod, pod("shop", "c"));
        let own = own.replacen("://", "://prod", 1);
        assert_eq!(options(&own, &environment).unwrap().pod, pod("prod", "c"));

        let config = read.config().await.unwrap();
        assert_eq!(config.cluster_url, "https://127.0.0.1:1");
        assert!(!format!("{read:?} {}", read.identity()).contains("s3cret"));
        fs::remove_file(Path::new(&file)).unwrap();
    }

    #[test]
    fn a_kubeconfig_with_a_fault_is_not_quoted() {
        let indented = "users:\n- name: u\n  user:\n    token: s3cret\n   other: x\n";
        let typed = "users:\n- name: u\n  user: s3cret\n";
        for (name, text, line) in [("indented", indented, 5), ("typed", typed, 3)] {
            let file = file(name, text);
            let why = options(&format!("kubernetes://shop?kubeconfig={file}"), &[]).unwrap_err();
            assert!(why.contains(&format!("{file}: it is no kubeconfig: line {line},")), "{why}");
            assert!(!why.contains("s3cret"), "{why}");
            fs::remove_file(Path::new(&file)).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_at_the_start() {
        let file = file("refused", KUBECONFIG);
        for (url, said) in [
            ("kubernetes://Shop?kubeconfig=F", "names no namespace"),
            ("kubernetes://a,b?kubeconfig=F", "names no namespace"),
            ("kubernetes://shop/a.b?kubeconfig=F", "Service can have"),
            ("kubernetes://shop/a:0?kubeconfig=F", "`0` is no port"),
            ("kubernetes://shop/a/b?kubeconfig=F", "Service can have"),
            ("kubernetes://me@shop?kubeconfig=F", "takes no user"),
            ("kubernetes://shop?kubeconfig=", "option `kubeconfig` is empty"),
            ("kubernetes://shop?kubeconfig=/nowhere/config", "cannot use /nowhere/config"),
            ("kubernetes://shop?kubeconfig=F&context=x", "no context `x`; it has: plain, shop"),
            (
                "kubernetes://shop?kubeconfig=F&format=go-zero",
                "`go-zero`; kubernetes:// has micro, kratos",
            ),
            ("kubernetes://shop?token=x", "kubernetes:// knows context, format, kubeconfig, pod"),
        ] {
            let why = options(&url.replace('F', &file), &[]).unwrap_err();
            assert!(why.contains(said), "{url}: {why}");
        }
        let proxied =
            KUBECONFIG.replace("127.0.0.1:1'", "127.0.0.1:1', proxy-url: 'http://10.0.0.9'");
        fs::write(Path::new(&file), proxied).unwrap();
        let why = options(&format!("kubernetes://shop?kubeconfig={file}"), &[]).unwrap_err();
        assert!(why.contains("cluster `c` is behind a proxy"), "{why}");

        let why = options("kubernetes://shop", &[(SERVICE_HOST, "10.0.0.1")]).unwrap_err();
        assert!(why.contains("the service account's files"), "{why}");
        fs::remove_file(Path::new(&file)).unwrap();
    }
}
