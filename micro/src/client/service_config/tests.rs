use std::time::Duration;

use tonic::Code;

use super::{ServiceConfig, Throttling, method::MethodConfig};
use crate::client::hedge::Delay;

mod balancing;

fn read(json: &str) -> ServiceConfig {
    json.parse().unwrap_or_else(|error| panic!("{json}: {error}"))
}

fn fault(json: &str) -> String {
    let error = json.parse::<ServiceConfig>().expect_err(json);
    assert!(error.is_config());
    let text = error.to_string();
    text.strip_prefix("the service config: ").expect("says of what it is").to_owned()
}

/// The config of all methods, of which this is a part.
fn method(part: &str) -> MethodConfig {
    *read(&for_all(part)).method("/a.B/C").expect("for all")
}

fn for_all(part: &str) -> String {
    format!(r#"{{"methodConfig": [{{"name": [{{}}], {part}}}]}}"#)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

// The examples of gRFC A6 as they are there:
// https://github.com/grpc/proposal/blob/master/A6-client-retries.md

const A6_RETRY: &str = r#"
"retryPolicy": {  
  "maxAttempts": 4,
  "initialBackoff": ".1s",
  "maxBackoff": "1s",
  "backoffMultiplier": 2,
  "retryableStatusCodes": [  
    "UNAVAILABLE"
  ]
}
"#;

const A6_HEDGING: &str = r#"
"hedgingPolicy": {  
  "maxAttempts": 4,
  "hedgingDelay": ".5s",
  "nonFatalStatusCodes": [  
    "UNAVAILABLE",
    "INTERNAL",
    "ABORTED"
  ]
}
"#;

const A6_HEDGING_AT_ONCE: &str = r#"
"hedgingPolicy": {  
  "maxAttempts": 4,
  "hedgingDelay": "0s",
  "nonFatalStatusCodes": [  
    "UNAVAILABLE",
    "INTERNAL",
    "ABORTED"
  ]
}
"#;

const A6_THROTTLING: &str = r#"
"retryThrottling": {  
  "maxTokens": 10,
  "tokenRatio": 0.1
}
"#;

/// Its schema, with values for the types and one of the two policies.
const A6_WHOLE: &str = r#"
{
  "loadBalancingPolicy": "round_robin",
  "methodConfig": [
    {
      "name": [
        {
          "service": "greeter.v1.Greeter",
          "method": "Hello"
        }
      ],
      "retryPolicy": {
        "maxAttempts": 3,
        "initialBackoff": "0.1s",
        "maxBackoff": "1s",
        "backoffMultiplier": 1.5,
        "retryableStatusCodes": ["UNAVAILABLE"]
      },
      "waitForReady": true,
      "timeout": "2s",
      "maxRequestMessageBytes": 1024,
      "maxResponseMessageBytes": 2048
    }
  ],
  "retryThrottling": {
    "maxTokens": 10,
    "tokenRatio": 0.1
  }
}
"#;

#[test]
fn the_retry_policy_of_grfc_a6() {
    let policy = method(A6_RETRY).retry.expect("a policy");
    let backoff = policy.backoff.expect("a backoff");
    assert_eq!(policy.max_attempts, 4);
    assert_eq!((backoff.initial, backoff.max, backoff.multiplier), (ms(100), ms(1000), 2.0));
    assert!(policy.codes.contains(Code::Unavailable) && !policy.codes.contains(Code::Internal));
}

#[test]
fn the_hedging_policies_of_grfc_a6() {
    for (json, delay) in [(A6_HEDGING, ms(500)), (A6_HEDGING_AT_ONCE, ms(0))] {
        let hedging = method(json).hedging.expect("a policy");
        assert_eq!((hedging.delay, hedging.timed), (Delay::Fixed(delay), 3));
        assert_eq!(hedging.others.max_attempts, 4);
        for code in [Code::Unavailable, Code::Internal, Code::Aborted] {
            assert!(hedging.others.codes.contains(code), "{code:?}");
        }
        assert!(!hedging.others.codes.contains(Code::NotFound));
    }
}

#[test]
fn the_throttling_of_grfc_a6() {
    let config = read(&format!("{{{A6_THROTTLING}}}"));
    assert_eq!(config.0.throttling, Some(Throttling { max: 10_000, ratio: 100 }));
}

#[test]
fn a_token_ratio_counts_to_its_third_decimal() {
    for (ratio, thousandths) in [
        ("0.5466", 546),
        ("0.5469999", 546),
        ("0.546", 546),
        ("0.0019", 1),
        // Not 1000, though in binary 1.001 times 1000 is less than 1001.
        ("1.001", 1001),
        ("1e300", 1_000_000),
    ] {
        let json = format!(r#"{{"retryThrottling": {{"maxTokens": 10, "tokenRatio": {ratio}}}}}"#);
        let throttling = read(&json).0.throttling.expect("given");
        assert_eq!(throttling.ratio, thousandths, "{ratio}");
    }
}

#[test]
fn the_whole_of_grfc_a6() {
    let config = read(A6_WHOLE);
    let method = config.method("/greeter.v1.Greeter/Hello").expect("named");
    assert_eq!(method.timeout, Some(ms(2000)));
    assert_eq!(method.wait_for_ready, Some(true));
    assert_eq!((method.max_request, method.max_response), (Some(1024), Some(2048)));
    assert!(method.retry.is_some() && method.hedging.is_none());
    assert!(config.method("/greeter.v1.Greeter/Bye").is_none());
    assert_eq!(name_of(&config), "RoundRobin");
    assert!(config.throttle(None).is_some());
    assert_eq!(config.health_check(), None);
}

#[test]
fn nothing_and_what_is_not_known_say_nothing() {
    for json in [
        "{}",
        r#"{"methodConfig": null, "retryThrottling": null, "loadBalancingConfig": null}"#,
        r#"{"methodConfig": [], "later": {"than": "this"}}"#,
        r#"{"methodConfig": [{"timeout": "1s"}, {"name": [], "timeout": "1s"}]}"#,
        r#"{"healthCheckConfig": {}}"#,
    ] {
        let config = read(json);
        assert!(config.method("/a.B/C").is_none(), "{json}");
        assert!(config.load_balancing().is_none() && config.throttle(None).is_none(), "{json}");
        assert!(config.health_check().is_none(), "{json}");
    }
    let config = r#"{"healthCheckConfig": {"serviceName": ""}}"#;
    assert_eq!(read(config).health_check(), Some(""), "the server as a whole");
}

#[test]
fn the_most_special_method_config_holds_whole() {
    let config = read(
        r#"{"methodConfig": [
            {"name": [{}], "timeout": "1s"},
            {"name": [{"service": "a.B"}, {"service": "a.C", "method": null}], "timeout": "2s"},
            {"name": [{"service": "a.B", "method": "D"}], "waitForReady": false}
        ]}"#,
    );
    let of = |path| config.method(path).map(|it| (it.timeout, it.wait_for_ready)).expect("for all");
    assert_eq!(of("/other.B/D"), (Some(ms(1000)), None));
    assert_eq!(of("/a.B/E"), (Some(ms(2000)), None));
    assert_eq!(of("/a.C/D"), (Some(ms(2000)), None));
    assert_eq!(of("/a.B/D"), (None, Some(false)));
}

#[test]
fn protobufs_other_forms_of_numbers_and_codes_are_read() {
    let config = method(
        r#""maxRequestMessageBytes": "1024", "maxResponseMessageBytes": 0, "hedgingPolicy":
        {"maxAttempts": 7.0, "nonFatalStatusCodes": [14, "DATA_LOSS", "aborted", "Internal"]}"#,
    );
    let hedging = config.hedging.expect("a policy");
    assert_eq!((config.max_request, config.max_response), (Some(1024), Some(0)));
    assert_eq!((hedging.others.max_attempts, hedging.timed), (5, 4), "over 5 counts as 5");
    for code in [Code::Unavailable, Code::DataLoss, Code::Aborted, Code::Internal] {
        assert!(hedging.others.codes.contains(code), "{code:?}");
    }
}

#[test]
fn what_breaks_a_rule_is_named_by_its_path() {
    for (json, expected) in [
        ("", "is no JSON: EOF while parsing a value at line 1 column 0"),
        ("[]", "$: [] is no object"),
        (r#"{"methodConfig": {}}"#, "$.methodConfig: {} is no list"),
        (r#"{"methodConfig": [7]}"#, "$.methodConfig[0]: 7 is no object"),
        (
            r#"{"methodConfig": [{"name": [{"method": "C"}]}]}"#,
            "$.methodConfig[0].name[0]: names a method and no service; add `service`",
        ),
        (
            r#"{"methodConfig": [{"name": [{"service": "a"}]}, {"name": [{}, {"service": "a"}]}]}"#,
            "$.methodConfig[1].name[1]: has a methodConfig already; leave one out",
        ),
        (r#"{"methodConfig": [{"timeout": 1}]}"#, "$.methodConfig[0].timeout: 1 is no string"),
        (
            r#"{"methodConfig": [{"timeout": "1m"}]}"#,
            "$.methodConfig[0].timeout: \"1m\" is no duration; write seconds with an s behind, such \
             as \"1.5s\"",
        ),
        (
            r#"{"methodConfig": [{"waitForReady": "yes"}]}"#,
            "$.methodConfig[0].waitForReady: \"yes\" is no true or false",
        ),
        (
            r#"{"methodConfig": [{"maxRequestMessageBytes": -1}]}"#,
            "$.methodConfig[0].maxRequestMessageBytes: -1 is no whole number of 32 bits",
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 1001, "tokenRatio": 1}}"#,
            "$.retryThrottling.maxTokens: 1001 is not over 0 and up to 1000; write a number such as 10",
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 0, "tokenRatio": 1}}"#,
            "$.retryThrottling.maxTokens: 0 is not over 0 and up to 1000; write a number such as 10",
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 10.5, "tokenRatio": 1}}"#,
            "$.retryThrottling.maxTokens: 10.5 is no whole number of 32 bits",
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.0001}}"#,
            "$.retryThrottling.tokenRatio: 0.0001 is under 0.001; write a number such as 0.1",
        ),
        (
            r#"{"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.0009}}"#,
            "$.retryThrottling.tokenRatio: 0.0009 is under 0.001; write a number such as 0.1",
        ),
        (r#"{"retryThrottling": {"maxTokens": 10}}"#, "$.retryThrottling: `tokenRatio` is missing"),
        (
            r#"{"healthCheckConfig": {"serviceName": 1}}"#,
            "$.healthCheckConfig.serviceName: 1 is no string",
        ),
    ] {
        assert_eq!(fault(json), expected, "{json}");
    }
}

#[test]
fn what_breaks_a_rule_of_a_policy_is_named_by_its_path() {
    let retry = |key: &str, value: &str| {
        let mut policy: serde_json::Value =
            serde_json::from_str(&format!("{{{A6_RETRY}}}")).expect("JSON");
        policy["retryPolicy"][key] = serde_json::from_str(value).expect("JSON");
        let json = serde_json::json!({ "methodConfig": [policy] });
        let fault = fault(&json.to_string());
        fault.strip_prefix("$.methodConfig[0].retryPolicy").expect(&fault).to_owned()
    };
    for (key, value, expected) in [
        ("maxAttempts", "null", ": `maxAttempts` is missing"),
        ("maxAttempts", "1", ".maxAttempts: 1 is too few; write 2 or more"),
        ("maxAttempts", "2.5", ".maxAttempts: 2.5 is no whole number of 32 bits"),
        ("initialBackoff", "null", ": `initialBackoff` is missing"),
        ("initialBackoff", "\"0s\"", ".initialBackoff: is zero; write a longer time"),
        ("maxBackoff", "\"0s\"", ".maxBackoff: is zero; write a longer time"),
        ("backoffMultiplier", "null", ": `backoffMultiplier` is missing"),
        (
            "backoffMultiplier",
            "0",
            ".backoffMultiplier: is not over zero; write a number such as 2",
        ),
        ("retryableStatusCodes", "null", ": `retryableStatusCodes` is missing"),
        (
            "retryableStatusCodes",
            "[]",
            ".retryableStatusCodes: is empty; name a status such as \"UNAVAILABLE\"",
        ),
        (
            "retryableStatusCodes",
            "[\"ABORTED\", \"OK\"]",
            ".retryableStatusCodes[1]: OK is no failure; leave it out",
        ),
        (
            "retryableStatusCodes",
            "[\"UNAVAILABLE\", \"BUSY\"]",
            ".retryableStatusCodes[1]: \"BUSY\" is no status code; write one such as \
             \"UNAVAILABLE\"",
        ),
        (
            "retryableStatusCodes",
            "[17]",
            ".retryableStatusCodes[0]: 17 is no status code; write one such as \"UNAVAILABLE\"",
        ),
    ] {
        assert_eq!(retry(key, value), expected, "{key}: {value}");
    }
    let hedging = for_all(r#""hedgingPolicy": {"maxAttempts": 1}"#);
    assert_eq!(
        fault(&hedging),
        "$.methodConfig[0].hedgingPolicy.maxAttempts: 1 is too few; write 2 or more"
    );
    assert_eq!(
        fault(&for_all(&format!("{A6_RETRY}, {A6_HEDGING}"))),
        "$.methodConfig[0]: has both a retryPolicy and a hedgingPolicy; leave one out"
    );
}

/// The policy, as `Debug` has it.
fn name_of(config: &ServiceConfig) -> String {
    let balancing = &config.load_balancing().expect("a policy").balancing;
    let text = format!("{balancing:?}");
    let name = text.strip_prefix("Balancing(").and_then(|text| text.strip_suffix(')'));
    name.expect("a tuple").to_owned()
}
