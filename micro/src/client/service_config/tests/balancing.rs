//! `loadBalancingConfig`.

use super::{fault, name_of, read};
use crate::balance::{EjectionRules, FailurePercentage};

#[test]
fn the_first_balancing_policy_that_is_known_is_taken() {
    let policy = |list: &str| name_of(&read(&format!(r#"{{"loadBalancingConfig": {list}}}"#)));
    let by_key = |header: &str, is_bounded: bool| {
        format!("ConsistentHash(ConsistentHash {{ header: {header}, is_bounded: {is_bounded} }})")
    };
    let user = r#"Some("x-user")"#;
    for (config, expected) in [
        (r#"{"round_robin": {}}"#, "RoundRobin"),
        (r#"{"pick_first": {"shuffleAddressList": true}}"#, "PickFirst"),
        (r#"{"least_request_experimental": {}}"#, "LeastRequest(2)"),
        (r#"{"least_request_experimental": {"choiceCount": "3"}}"#, "LeastRequest(3)"),
        (r#"{"least_request_experimental": {"choiceCount": 10}}"#, "LeastRequest(10)"),
        (r#"{"least_request_experimental": {"choiceCount": 11}}"#, "LeastRequest(10)"),
        (r#"{"weighted_round_robin": {}}"#, "Weighted"),
        (r#"{"ring_hash_experimental": {}}"#, &*by_key("None", false)),
        (r#"{"ring_hash_experimental": {"requestHashHeader": "x-user"}}"#, &*by_key(user, false)),
        (r#"{"random_experimental": {}}"#, "Random"),
        (r#"{"p2c": {}}"#, "P2c"),
        (r#"{"random": {}}"#, "Random"),
        (r#"{"least_request": {}}"#, "LeastRequest(2)"),
        (r#"{"least_request": {"choiceCount": 4}}"#, "LeastRequest(4)"),
        (r#"{"weighted": {}}"#, "Weighted"),
        (r#"{"consistent_hash": {}}"#, &*by_key("None", true)),
        (r#"{"consistent_hash": {"header": "x-user", "bounded": false}}"#, &*by_key(user, false)),
        (r#"{"zone_first": {"zone": "a"}}"#, r#"ZoneFirst("a")"#),
    ] {
        assert_eq!(policy(&format!("[{config}]")), expected);
    }
    let second = policy(r#"[{"rls": 7}, {"zone_first": {"zone": "a"}}, {"random": {}}]"#);
    assert_eq!(second, r#"ZoneFirst("a")"#);
    assert_eq!(name_of(&read(r#"{"loadBalancingPolicy": "ROUND_ROBIN"}"#)), "RoundRobin");
}

#[test]
fn the_outlier_detection_of_grfc_a50_is_around_another_policy() {
    let rules = |config: &str| {
        let list = format!(r#"[{{"outlier_detection_experimental": {config}}}]"#);
        let config = read(&format!(r#"{{"loadBalancingConfig": {list}}}"#));
        assert_eq!(name_of(&config), "RoundRobin");
        config.load_balancing().and_then(|it| it.ejection.clone()).expect("around it")
    };
    let defaults = rules(
        r#"{"childPolicy": [{"round_robin": {}}], "successRateEjection": {},
            "failurePercentageEjection": {}}"#,
    );
    let ours = EjectionRules::default();
    let expected = EjectionRules {
        max_ejection_percent: 10,
        failure_percentage: ours
            .failure_percentage
            .clone()
            .map(|rule| FailurePercentage { minimum_hosts: 5, ..rule }),
        if_clear: false,
        ..ours
    };
    assert_eq!(defaults, expected);
    let given = rules(
        r#"{"interval": "1s", "baseEjectionTime": "400s", "maxEjectionPercent": 50,
            "failurePercentageEjection": {"threshold": 40}, "childPolicy": [{"round_robin": {}}]}"#,
    );
    assert_eq!((given.interval.as_secs(), given.max_ejection_percent), (1, 50));
    assert_eq!(given.success_rate, None);
    assert_eq!(given.failure_percentage.expect("given").threshold, 40);
}

#[test]
fn what_does_not_hold_is_named_by_its_path_with_what_does() {
    let reports = "load reports are not read, and the weights are those of the nodes' records";
    let ring = "the ring has one point for each node";
    for (policy, expected) in [
        (r#"{"pick_first": {"shuffleAddressList": true}}"#, vec![]),
        (
            r#"{"pick_first": {"shuffleAddressList": false}}"#,
            vec![(
                "pick_first.shuffleAddressList",
                "nodes are in no order, and the first is any of them",
            )],
        ),
        (r#"{"least_request_experimental": {"choiceCount": 20}}"#, vec![]),
        (r#"{"weighted_round_robin": {"blackoutPeriod": null}}"#, vec![]),
        (
            r#"{"weighted_round_robin": {
                "enableOobLoadReport": true, "oobReportingPeriod": "10s", "blackoutPeriod": "10s",
                "weightExpirationPeriod": "180s", "weightUpdatePeriod": "1s",
                "errorUtilizationPenalty": 1.0
            }}"#,
            vec![
                ("weighted_round_robin.enableOobLoadReport", reports),
                ("weighted_round_robin.errorUtilizationPenalty", reports),
                ("weighted_round_robin.oobReportingPeriod", reports),
                ("weighted_round_robin.blackoutPeriod", reports),
                ("weighted_round_robin.weightExpirationPeriod", reports),
                ("weighted_round_robin.weightUpdatePeriod", reports),
            ],
        ),
        (r#"{"ring_hash_experimental": {"requestHashHeader": "x-user"}}"#, vec![]),
        (
            r#"{"ring_hash_experimental": {"minRingSize": 1024, "maxRingSize": 4096}}"#,
            vec![
                ("ring_hash_experimental.minRingSize", ring),
                ("ring_hash_experimental.maxRingSize", ring),
            ],
        ),
        (
            r#"{"outlier_detection_experimental": {
                "interval": "1s", "maxEjectionPercent": 50, "childPolicy": [{"random": {}}]
            }}"#,
            vec![],
        ),
        (
            r#"{"outlier_detection_experimental": {
                "interval": "0s", "baseEjectionTime": "0s", "maxEjectionTime": "0s",
                "maxEjectionPercent": 51,
                "childPolicy": [{"rls": {}}, {"ring_hash_experimental": {"minRingSize": 7}}]
            }}"#,
            vec![
                ("outlier_detection_experimental.interval", "less than 1s counts as that"),
                ("outlier_detection_experimental.maxEjectionPercent", "over 50 counts as that"),
                (
                    "outlier_detection_experimental.childPolicy[1].ring_hash_experimental.minRingSize",
                    ring,
                ),
            ],
        ),
    ] {
        let config = read(&format!(r#"{{"loadBalancingConfig": [{policy}]}}"#));
        let told = |(path, what)| format!("$.loadBalancingConfig[0].{path}: {what}");
        let expected: Vec<_> = expected.into_iter().map(told).collect();
        assert_eq!(config.unheeded(), expected, "{policy}");
    }
    assert!(read("{}").unheeded().is_empty());
}

#[test]
fn what_breaks_a_rule_of_balancing_is_named_by_its_path() {
    let all = "write one of round_robin, pick_first, least_request_experimental, \
               weighted_round_robin, ring_hash_experimental, random_experimental, p2c, random, \
               least_request, weighted, consistent_hash, zone_first";
    for (list, expected) in [
        ("[]", format!(": no policy of `` is known; {all}")),
        (r#"[{"a": {}}, {"b": {}}]"#, format!(": no policy of `a`, `b` is known; {all}")),
        (r#"[{}]"#, "[0]: has 0 keys; write one, a policy's".to_owned()),
        (r#"[{"a": {}, "b": {}}]"#, "[0]: has 2 keys; write one, a policy's".to_owned()),
        (r#"[{"random": []}]"#, "[0].random: [] is no object".to_owned()),
        (
            r#"[{"least_request_experimental": {"choiceCount": 1}}]"#,
            "[0].least_request_experimental.choiceCount: is under 2; write 2 or more".to_owned(),
        ),
        (
            r#"[{"pick_first": {"shuffleAddressList": 1}}]"#,
            "[0].pick_first.shuffleAddressList: 1 is no true or false".to_owned(),
        ),
        (
            r#"[{"ring_hash_experimental": {"minRingSize": 5000}}]"#,
            "[0].ring_hash_experimental: minRingSize is over maxRingSize; write them the other \
             way round"
                .to_owned(),
        ),
        (
            r#"[{"ring_hash_experimental": {"maxRingSize": 0}}]"#,
            "[0].ring_hash_experimental.maxRingSize: 0 is not in 1 up to 8388608".to_owned(),
        ),
        (
            r#"[{"weighted_round_robin": {"errorUtilizationPenalty": -0.5}}]"#,
            "[0].weighted_round_robin.errorUtilizationPenalty: is negative; write 0 or more"
                .to_owned(),
        ),
        (
            r#"[{"weighted_round_robin": {"enableOobLoadReport": "yes"}}]"#,
            "[0].weighted_round_robin.enableOobLoadReport: \"yes\" is no true or false".to_owned(),
        ),
        (
            r#"[{"weighted_round_robin": {"blackoutPeriod": "soon"}}]"#,
            "[0].weighted_round_robin.blackoutPeriod: \"soon\" is no duration; write seconds with an s \
             behind, such as \"1.5s\""
                .to_owned(),
        ),
        (r#"[{"zone_first": {}}]"#, "[0].zone_first: `zone` is missing".to_owned()),
        (
            r#"[{"consistent_hash": {"header": "a b"}}]"#,
            "[0].consistent_hash.header: consistent_hash by the header 'a b': no header can have \
             that name; take letters, digits and '-'"
                .to_owned(),
        ),
        (
            r#"[{"outlier_detection_experimental": {"interval": "-1s", "childPolicy": []}}]"#,
            "[0].outlier_detection_experimental.interval: \"-1s\" is no duration; write seconds with an s \
             behind, such as \"1.5s\""
                .to_owned(),
        ),
        (
            r#"[{"outlier_detection_experimental": {}}]"#,
            "[0].outlier_detection_experimental: `childPolicy` is missing".to_owned(),
        ),
        (
            r#"[{"outlier_detection_experimental": {"maxEjectionPercent": 101}}]"#,
            "[0].outlier_detection_experimental.maxEjectionPercent: 101 is over 100 percent"
                .to_owned(),
        ),
    ] {
        let fault = fault(&format!(r#"{{"loadBalancingConfig": {list}}}"#));
        assert_eq!(fault.strip_prefix("$.loadBalancingConfig"), Some(&*expected), "{fault}");
    }
}
