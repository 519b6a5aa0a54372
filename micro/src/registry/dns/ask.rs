//! Asking: one question of the registry's is as many of DNS as it takes.

use std::{
    cmp::min,
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    time::Duration,
};

use futures_util::{StreamExt, stream};
use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{Name, RData, Record, RecordType},
    },
};

use super::{
    super::Malformed,
    target::{Question, Target},
};

/// How long a server that the URL names may take to answer before it, or the next, is asked again:
/// twice more.
const ATTEMPT: Duration = Duration::from_secs(1);

/// The most targets of SRV records that are looked up, of one answer.
const MOST_TARGETS: usize = 1000;

/// How many of them at once.
const AT_ONCE: usize = 8;

/// What was found: never nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// `host:port`, with the weight that an SRV record gives it.
    pub(super) addresses: BTreeMap<String, Option<u16>>,
    /// Targets without an address.
    pub(super) malformed: Vec<Malformed>,
    /// How long all of it holds.
    pub(super) ttl: Duration,
}

/// Which addresses were there before. What fails to be told of a kind that there was is no answer,
/// or that kind would go with each lost packet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Kinds {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

/// Why there is no answer.
#[derive(Debug)]
enum Failure {
    /// DNS says that there is nothing.
    Nothing(String),
    /// It does not say, or not to us.
    Unknown(String),
}

/// Asks.
///
/// # Errors
/// Why it could not, or that there is nothing.
pub(super) async fn ask(
    target: &Target,
    question: &Question,
    kinds: Kinds,
) -> Result<Answer, String> {
    let resolver = resolver(target)?;
    let answer = match question {
        Question::Addresses(name, port) => {
            addresses(&resolver, name, kinds).await.map(|(addresses, ttl)| {
                let addresses = addresses.into_iter().map(|ip| (written(ip, *port), None));
                Answer { addresses: addresses.collect(), malformed: Vec::new(), ttl }
            })
        }
        Question::Services(name) => services(&resolver, name, kinds).await,
    };
    answer.map_err(|failure| match failure {
        Failure::Nothing(why) | Failure::Unknown(why) => why,
    })
}

/// A resolver for one question of ours. It keeps nothing: an answer holds for its TTL here, and
/// whoever asks sooner wants to know what DNS says now. Nor does a change of the system's own
/// configuration go unseen.
fn resolver(target: &Target) -> Result<TokioResolver, String> {
    let mut builder = if target.servers.is_empty() {
        TokioResolver::builder_tokio().map_err(|error| {
            format!("the system's resolver configuration cannot be used: {error}")
        })?
    } else {
        let servers = target.servers.iter().map(|address| {
            let mut server = NameServerConfig::udp_and_tcp(address.ip());
            for connection in &mut server.connections {
                connection.port = address.port();
            }
            server
        });
        let config = ResolverConfig::from_name_servers(servers.collect());
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        let options = builder.options_mut();
        options.timeout = ATTEMPT;
        options.use_hosts_file = ResolveHosts::Never;
        builder
    };
    builder.options_mut().cache_size = 0;
    builder.build().map_err(|error| format!("no resolver can be made: {error}"))
}

/// The targets of the SRV records of the lowest priority, each with the port there.
async fn services(resolver: &TokioResolver, name: &Name, kinds: Kinds) -> Result<Answer, Failure> {
    let (records, mut ttl) = records(resolver, name, RecordType::SRV).await?;
    let records = records.iter().filter_map(|record| match &record.data {
        // By RFC 2782 a root says that there is decidedly no such service.
        RData::SRV(srv) if !srv.target.is_root() => Some(srv),
        _ => None,
    });
    let lowest = records.clone().map(|srv| srv.priority).min();
    let records: Vec<_> = records.filter(|srv| Some(srv.priority) == lowest).collect();
    let targets: BTreeSet<_> = records.iter().map(|srv| srv.target.clone()).collect();
    if targets.len() > MOST_TARGETS {
        return Err(Failure::Unknown(format!(
            "SRV records of {name} have {} targets, and {MOST_TARGETS} are the most there may be",
            targets.len()
        )));
    }
    let looked_up = stream::iter(targets).map(async |target| {
        let found = addresses(resolver, &target, kinds).await;
        (target, found)
    });
    let looked_up: HashMap<_, _> = looked_up.buffer_unordered(AT_ONCE).collect().await;
    let mut answer =
        Answer { addresses: BTreeMap::new(), malformed: Vec::new(), ttl: Duration::ZERO };
    for (target, found) in &looked_up {
        match found {
            Ok((_, holds)) => ttl = min(ttl, *holds),
            Err(Failure::Nothing(reason)) => {
                answer.malformed.push(Malformed { key: target.to_string(), reason: reason.clone() })
            }
            Err(Failure::Unknown(why)) => return Err(Failure::Unknown(why.clone())),
        }
    }
    for srv in records {
        for ip in looked_up[&srv.target].iter().flat_map(|(ips, _)| ips) {
            answer.addresses.insert(written(*ip, srv.port), Some(srv.weight));
        }
    }
    answer.malformed.sort_by(|a, b| a.key.cmp(&b.key));
    answer.ttl = ttl;
    match (answer.addresses.is_empty(), answer.malformed.first()) {
        (false, _) => Ok(answer),
        (true, None) => Err(Failure::Nothing(format!("{name} has no SRV record with a target"))),
        (true, Some(first)) => Err(Failure::Nothing(format!(
            "no target of the SRV records of {name} has an address: {}",
            first.reason
        ))),
    }
}

/// The addresses of a name, of both kinds.
async fn addresses(
    resolver: &TokioResolver,
    name: &Name,
    kinds: Kinds,
) -> Result<(Vec<IpAddr>, Duration), Failure> {
    let (v4, v6) = futures_util::join!(
        records(resolver, name, RecordType::A),
        records(resolver, name, RecordType::AAAA)
    );
    let (mut found, mut ttl) = (Vec::new(), Duration::MAX);
    let mut failures = Vec::new();
    for (records, is_wanted) in [(v4, kinds.v4), (v6, kinds.v6)] {
        match records {
            Ok((records, holds)) => {
                found.extend(records.iter().filter_map(|record| record.data.ip_addr()));
                ttl = min(ttl, holds);
            }
            Err(failure) => failures.push((failure, is_wanted)),
        }
    }
    let is_doubtful = |failure: &Failure, is_wanted: bool| {
        matches!(failure, Failure::Unknown(_)) && (found.is_empty() || is_wanted)
    };
    // A failure tells more than that there is nothing of the other kind.
    if let Some(index) = failures.iter().position(|(it, is_wanted)| is_doubtful(it, *is_wanted)) {
        return Err(failures.swap_remove(index).0);
    }
    match failures.into_iter().next() {
        Some((failure, _)) if found.is_empty() => Err(failure),
        _ => Ok((found, ttl)),
    }
}

/// The records of that type that a name has, through its aliases, and how long they hold.
async fn records(
    resolver: &TokioResolver,
    name: &Name,
    kind: RecordType,
) -> Result<(Vec<Record>, Duration), Failure> {
    let lookup = resolver.lookup(name.clone(), kind).await.map_err(|error| match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => {
            Failure::Nothing(match none.response_code {
                ResponseCode::NXDomain => format!("the name {name} does not exist"),
                _ => format!("{name} has no {kind} record"),
            })
        }
        NetError::Dns(DnsError::ResponseCode(code)) => {
            Failure::Unknown(format!("{name}, {kind}: the DNS server answers {code}"))
        }
        NetError::Timeout => Failure::Unknown(format!("{name}, {kind}: no answer in time")),
        error => Failure::Unknown(format!("{name}, {kind}: {error}")),
    })?;
    // The least of the whole chain: an alias may lead elsewhere before what it led to changes.
    let ttl = lookup.answers().iter().map(|record| record.ttl).min();
    let records: Vec<_> =
        lookup.answers().iter().filter(|record| record.record_type() == kind).cloned().collect();
    match ttl {
        Some(ttl) if !records.is_empty() => Ok((records, Duration::from_secs(ttl.into()))),
        _ => Err(Failure::Nothing(format!("{name} has no {kind} record"))),
    }
}

fn written(ip: IpAddr, port: u16) -> String {
    std::net::SocketAddr::new(ip, port).to_string()
}
