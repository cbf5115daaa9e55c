//! What is not as planned on a live broker. Names are a means: a federation that was set up by
//! hand, or from a file that names the brokers otherwise, is judged by what it connects and how.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::apply::{Target, TopologyError};
use super::compare::{Live, declared, settings};
use super::{BrokerPlan, DISCONNECTED_TIMEOUT, PolicySpec, hash, uri};
use crate::broker::management::segment;
use crate::model::brokers::OTHER_TYPE_CURE;

const APPLY: &str = "run `tandem topology apply`";
/// What to do about an object whose properties cannot be changed.
pub(super) const FIXED_CURE: &str = "delete it, then run `tandem topology apply`";
const UPSTREAM_SET: &str = "federation upstream set";

/// Something on a live broker that is not as planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Label of the broker.
    pub broker: String,
    /// Kind and name of the object.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
    /// How to mend it.
    pub cure: String,
    /// Whether something is missing or wrong; else it is only done in another way than planned.
    pub grave: bool,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            broker,
            object,
            problem,
            cure,
            ..
        } = self;
        write!(f, "{broker}: {object}: {problem}; {cure}")
    }
}

/// What is not as planned on one broker of the plan, links aside (see [`super::links`]). Empty
/// where all is well.
///
/// # Errors
/// The broker cannot be reached or refuses.
pub async fn missing(plan: &BrokerPlan) -> Result<Vec<Finding>, TopologyError> {
    let target = Target::new(plan)?.fitted().await?;
    let plan = &*target.plan;
    let mut findings = look_at_declared(plan, &target).await?;
    // What may be there under another name: (object, what is wrong with it).
    let mut elsewhere = Vec::new();
    for object in settings(plan) {
        let name = format!("{} {}", object.kind, object.name);
        match target.live(&object).await? {
            Live::Same => {}
            Live::Absent => elsewhere.push((name, "does not exist".to_owned())),
            Live::Stale(why) if object.kind == UPSTREAM_SET => elsewhere.push((name, why)),
            Live::Stale(why) | Live::Fixed(why) | Live::OtherType(why) => {
                findings.grave(name, why, APPLY);
            }
        }
    }
    let live = LiveSettings::read(&target).await?;
    let used = governed(&target, &live, !elsewhere.is_empty(), &mut findings).await?;
    let served = used.filter(|_| !findings.all.iter().any(|found| found.grave));
    for (name, why) in elsewhere {
        match &served {
            Some(names) => findings.light(
                name,
                format!("{why}; {} do the same", names.join(", ")),
                "right where the federation was set up by hand or from a file that names the \
                 brokers otherwise; else run `tandem topology apply`",
            ),
            None => findings.grave(name, why, APPLY),
        }
    }
    Ok(findings.all)
}

/// What queues and exchanges lack or have otherwise than planned: all that a user may ask for who
/// must not read policies and parameters.
///
/// # Errors
/// The broker cannot be reached or refuses.
pub async fn undeclared(plan: &BrokerPlan) -> Result<Vec<Finding>, TopologyError> {
    let target = Target::new(plan)?;
    Ok(look_at_declared(plan, &target).await?.all)
}

async fn look_at_declared<'a>(
    plan: &'a BrokerPlan,
    target: &Target<'_>,
) -> Result<Findings<'a>, TopologyError> {
    let mut findings = Findings::of(plan);
    for object in declared(plan) {
        let name = format!("{} {}", object.kind, object.name);
        match target.live(&object).await? {
            Live::Same => {}
            Live::Absent => findings.grave(name, "does not exist", APPLY),
            Live::Stale(why) => findings.grave(name, why, APPLY),
            Live::Fixed(why) => {
                findings.grave(name, why, FIXED_CURE);
            }
            Live::OtherType(why) => findings.grave(name, why, OTHER_TYPE_CURE),
        }
    }
    for (name, why) in hash::strays(target).await? {
        findings.grave(format!("binding {name}"), why, hash::STRAY_CURE);
    }
    Ok(findings)
}

struct Findings<'a> {
    broker: &'a str,
    all: Vec<Finding>,
}

impl<'a> Findings<'a> {
    fn of(plan: &'a BrokerPlan) -> Self {
        Self {
            broker: &plan.broker.label,
            all: Vec::new(),
        }
    }

    fn add(&mut self, object: String, problem: String, cure: &str, grave: bool) {
        self.all.push(Finding {
            broker: self.broker.to_owned(),
            object,
            problem,
            cure: cure.to_owned(),
            grave,
        });
    }

    fn grave(&mut self, object: String, problem: impl Into<String>, cure: &str) {
        self.add(object, problem.into(), cure, true);
    }

    fn light(&mut self, object: String, problem: impl Into<String>, cure: &str) {
        self.add(object, problem.into(), cure, false);
    }
}

/// Judges what governs each object of the plan's policies. Gives the foreign names that do the
/// plan's work, `None` where an object lacks something.
async fn governed(
    target: &Target<'_>,
    live: &LiveSettings,
    all: bool,
    findings: &mut Findings<'_>,
) -> Result<Option<Vec<String>>, TopologyError> {
    let plan = &*target.plan;
    let mut used = BTreeSet::new();
    let mut whole = true;
    for policy in &plan.policies {
        for name in &policy.objects {
            let kind = policy.applies_to;
            let path = format!("{kind}/{}/{}", segment(&plan.vhost), segment(name));
            let Some(object) = target.get(&path).await? else {
                whole = false;
                continue;
            };
            let object_name = format!("{} {name}", kind.trim_end_matches('s'));
            let Some(by) = object["policy"].as_str() else {
                // Just after a change the broker may not know yet.
                if !live.policies.contains_key(&policy.name) {
                    whole = false;
                    findings.grave(object_name, "obeys no policy", APPLY);
                }
                continue;
            };
            if by == policy.name && !all {
                continue;
            }
            let judged = judge(plan, policy, by, live);
            used.extend(judged.used);
            let object_name = format!("{object_name}, policy {by}");
            if !judged.grave.is_empty() {
                whole = false;
                let problem = judged.grave.join("; ");
                let cure = "correct that policy and its upstreams; or give it a priority below \
                            100 or a narrower pattern and run `tandem topology apply`";
                findings.grave(object_name.clone(), problem, cure);
            }
            if !judged.light.is_empty() {
                let cure =
                    "works; for the planned value correct that policy or its upstream by hand";
                findings.light(object_name, judged.light.join("; "), cure);
            }
        }
    }
    Ok(whole.then(|| used.into_iter().collect()))
}

/// Parameters and policies as they are on a broker, by name.
#[derive(Debug, Default)]
struct LiveSettings {
    upstreams: BTreeMap<String, Value>,
    sets: BTreeMap<String, Value>,
    policies: BTreeMap<String, Value>,
}

impl LiveSettings {
    async fn read(target: &Target<'_>) -> Result<Self, TopologyError> {
        let vhost = segment(&target.plan.vhost);
        let list = async |path: String, key: &str| -> Result<_, TopologyError> {
            let all = target.get(&path).await?.unwrap_or_default();
            let all = all.as_array().cloned().unwrap_or_default();
            let named = all
                .iter()
                .filter_map(|one| Some((one["name"].as_str()?.to_owned(), one[key].clone())));
            Ok(named.collect::<BTreeMap<String, Value>>())
        };
        Ok(Self {
            upstreams: list(format!("parameters/federation-upstream/{vhost}"), "value").await?,
            sets: list(
                format!("parameters/federation-upstream-set/{vhost}"),
                "value",
            )
            .await?,
            policies: list(format!("policies/{vhost}"), "definition").await?,
        })
    }

    /// The upstreams that a policy's definition names, with their values; a set's members may
    /// override parts of them.
    fn feeding(&self, definition: &Value) -> Vec<(&str, Value)> {
        let named = |name: &str| {
            let (name, value) = self.upstreams.get_key_value(name)?;
            Some((name.as_str(), value.clone()))
        };
        if let Some(one) = definition["federation-upstream"].as_str() {
            return named(one).into_iter().collect();
        }
        let everything = || self.upstreams.keys().filter_map(|name| named(name));
        match definition["federation-upstream-set"].as_str() {
            Some("all") => everything().collect(),
            Some(set) => {
                let members = self.sets.get(set).and_then(Value::as_array);
                let members = members.into_iter().flatten();
                members
                    .filter_map(|member| {
                        let (name, mut value) = named(member["upstream"].as_str()?)?;
                        for (key, other) in member.as_object()? {
                            value[key] = other.clone();
                        }
                        Some((name, value))
                    })
                    .collect()
            }
            // Which of them the pattern means, the links show.
            None if definition.get("federation-upstream-pattern").is_some() => {
                everything().collect()
            }
            None => Vec::new(),
        }
    }
}

/// What a policy does for an object, against what the plan's would.
#[derive(Debug, Default, PartialEq, Eq)]
struct Judged {
    grave: Vec<String>,
    light: Vec<String>,
    used: Vec<String>,
}

fn judge(plan: &BrokerPlan, policy: &PolicySpec, by: &str, live: &LiveSettings) -> Judged {
    let mut judged = Judged::default();
    let empty = Value::Null;
    let definition = live.policies.get(by).unwrap_or(&empty);
    let wanted = &policy.value["definition"];
    if by != policy.name {
        judged.used.push(format!("policy {by}"));
        for (key, value) in wanted.as_object().into_iter().flatten() {
            if !key.starts_with("federation-") && definition.get(key) != Some(value) {
                let found = definition.get(key).unwrap_or(&empty);
                let list = match key.as_str() {
                    // Clients wait longer where a node is lost; and rabbitmq.conf may say it.
                    DISCONNECTED_TIMEOUT => &mut judged.light,
                    _ => &mut judged.grave,
                };
                list.push(format!("{key} is {found}, should be {value}"));
            }
        }
    }
    let Some(set) = wanted["federation-upstream-set"].as_str() else {
        return judged;
    };
    let planned = planned_upstreams(plan, set);
    let feeding = live.feeding(definition);
    let wanted: Vec<Place> = planned
        .iter()
        .map(|(name, value)| Place::of(name, value))
        .collect();
    let there: Vec<Place> = feeding
        .iter()
        .map(|(name, value)| Place::of(name, value))
        .collect();
    let own = uri::addresses_of(&plan.broker.amqp_uri);
    let found = matched(&wanted, &there, &own);
    for ((name, value), found) in planned.iter().zip(found) {
        match found.map(|at| &feeding[at]) {
            None => judged.grave.push(format!(
                "not federated from {}",
                Place::of(name, value).addresses.join(",")
            )),
            // That it differs has been told by its name.
            Some((other, _)) if other == name => {}
            Some((other, real)) => {
                judged.used.push(format!("upstream {other}"));
                compare_upstream(other, value, real, &mut judged);
            }
        }
    }
    judged
}

fn planned_upstreams<'a>(plan: &'a BrokerPlan, set: &str) -> Vec<(&'a str, &'a Value)> {
    let set = plan.upstream_sets.iter().find(|one| one.name == set);
    let members = set.and_then(|set| set.value.as_array());
    let names = members.into_iter().flatten();
    names
        .filter_map(|member| {
            let wanted = member["upstream"].as_str()?;
            let upstream = plan.upstreams.iter().find(|one| one.name == wanted)?;
            Some((upstream.name.as_str(), &upstream.value))
        })
        .collect()
}

/// How an upstream of another name carries what it carries. What loses or multiplies messages is
/// grave.
fn compare_upstream(name: &str, wanted: &Value, real: &Value, judged: &mut Judged) {
    // With the broker's defaults.
    for (key, default, grave) in [
        ("ack-mode", Value::from("on-confirm"), true),
        ("max-hops", Value::from(1), true),
        ("prefetch-count", Value::from(1000), false),
        ("reconnect-delay", Value::from(5), false),
        ("message-ttl", Value::Null, false),
        ("expires", Value::Null, false),
    ] {
        let found = real.get(key).unwrap_or(&default);
        if *found != wanted[key] && !(key == "reconnect-delay" && is_prompt(found)) {
            let text = format!(
                "upstream {name}: {key} is {found}, should be {}",
                wanted[key]
            );
            let list = match grave {
                true => &mut judged.grave,
                false => &mut judged.light,
            };
            list.push(text);
        }
    }
}

/// Whether a link of somebody else's making connects again soon enough.
fn is_prompt(delay: &Value) -> bool {
    delay.as_f64().is_some_and(|seconds| seconds <= 1.0)
}

/// An upstream or a link: what it is called and where it leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) name: String,
    /// `host:port`; several where any of them will do.
    pub(super) addresses: Vec<String>,
}

impl Place {
    /// From an upstream's value, or a link as the management API lists it.
    pub(super) fn of(name: &str, value: &Value) -> Self {
        let uris: Vec<&str> = match &value["uri"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        Self {
            name: name.to_owned(),
            addresses: uris.into_iter().map(uri::address_of).collect(),
        }
    }

    fn leads_to(&self, addresses: &[String]) -> bool {
        self.addresses.iter().any(|one| addresses.contains(one))
    }
}

/// Which live one stands for each wanted one: the one of its name; else one that leads there;
/// else one that leads to no broker that is known, because brokers may reach each other by other
/// addresses than instances do.
pub(super) fn matched(wanted: &[Place], live: &[Place], own: &[String]) -> Vec<Option<usize>> {
    let mut known: Vec<String> = wanted.iter().flat_map(|p| p.addresses.clone()).collect();
    known.extend_from_slice(own);
    let mut found = vec![None; wanted.len()];
    type Rule<'r> = &'r dyn Fn(&Place, &Place) -> bool;
    let rules: [Rule<'_>; 3] = [
        &|wanted, live| wanted.name == live.name,
        &|wanted, live| live.leads_to(&wanted.addresses),
        &|_, live| !live.leads_to(&known),
    ];
    for rule in rules {
        for (at, wanted) in wanted.iter().enumerate() {
            if found[at].is_none() {
                let mut all = live.iter().enumerate();
                let fits = |(index, live): &(usize, &Place)| {
                    !found.contains(&Some(*index)) && rule(wanted, live)
                };
                found[at] = all.find(fits).map(|(index, _)| index);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::{Topology, TopologyBroker, TopologyInput};
    use super::*;

    fn place(name: &str, address: &str) -> Place {
        Place::of(name, &json!({"uri": format!("amqp://{address}/%2F")}))
    }

    #[test]
    fn what_is_wanted_is_found_by_name_then_by_address_then_by_what_is_left() {
        let wanted = [place("a", "host-a"), place("b", "host-b")];
        let own = ["own:5672".to_owned()];
        let found = |live: &[Place]| matched(&wanted, live, &own);
        let same = [place("b", "relay:1"), place("a", "relay:2")];
        assert_eq!(found(&same), [Some(1), Some(0)]);
        let other = [place("x", "HOST-B:5672"), place("y", "host-a:5672")];
        assert_eq!(found(&other), [Some(1), Some(0)]);
        // Another address is taken for the one that is left; the own broker is never.
        assert_eq!(
            found(&[place("x", "host-b"), place("y", "inside:1")]),
            [Some(1), Some(0)]
        );
        assert_eq!(
            found(&[place("x", "own"), place("y", "host-b")]),
            [None, Some(1)]
        );
        // Two ways to one broker are none to the other.
        assert_eq!(
            found(&[place("x", "host-b"), place("y", "host-b")]),
            [None, Some(0)]
        );
        assert_eq!(found(&[]), [None, None]);
    }

    fn plan() -> BrokerPlan {
        let broker = |n: u32| TopologyBroker {
            label: format!("site-{n}"),
            amqp_uri: format!("amqp://host-{n}:5672"),
            management_url: format!("http://host-{n}:15672"),
            user: "u".to_owned(),
            password: "p".to_owned(),
            tls: Default::default(),
        };
        let input = TopologyInput {
            cluster_name: "tandem".to_owned(),
            queue_type: Default::default(),
            command_queues: vec!["Connector1".to_owned()],
            hash: None,
            command_max_age: Duration::from_secs(30),
            brokers: vec![broker(1), broker(2)],
            federation_uris: BTreeMap::new(),
            federation_tls: Default::default(),
        };
        Topology::of(&input).brokers.remove(0)
    }

    /// One policy of another name with everything in it, fed by an upstream of another name.
    fn by_hand(upstream: Value) -> LiveSettings {
        let definition = json!({"message-ttl": 30_000, "dead-letter-exchange": "",
            "dead-letter-routing-key": "tandem.expired", "federation-upstream-set": "all"});
        LiveSettings {
            upstreams: BTreeMap::from([("paris".to_owned(), upstream)]),
            sets: BTreeMap::new(),
            policies: BTreeMap::from([("hand".to_owned(), definition)]),
        }
    }

    #[test]
    fn a_federation_by_hand_is_judged_by_what_it_does() {
        let plan = plan();
        let mut value = plan.upstreams[0].value.clone();
        let commands = &plan.policies[0];
        let good = judge(&plan, commands, "hand", &by_hand(value.clone()));
        assert_eq!((good.grave.len(), good.light.len()), (0, 0), "{good:?}");
        assert_eq!(good.used, ["policy hand", "upstream paris"]);
        value["reconnect-delay"] = json!(1);
        let prompt = judge(&plan, commands, "hand", &by_hand(value.clone()));
        assert!(prompt.light.is_empty(), "{prompt:?}");
        value["reconnect-delay"] = json!(60);
        value["ack-mode"] = json!("no-ack");
        let worse = judge(&plan, commands, "hand", &by_hand(value));
        assert!(
            worse.light[0].contains("reconnect-delay is 60"),
            "{worse:?}"
        );
        assert!(worse.grave[0].contains("ack-mode"), "{worse:?}");
        let mut none = by_hand(json!({"uri": "amqp://host-1"}));
        none.policies.get_mut("hand").unwrap()["message-ttl"] = json!(1);
        let none = judge(&plan, commands, "hand", &none);
        let text = none.grave.join("; ");
        assert!(
            text.contains("message-ttl is 1, should be 30000")
                && text.contains("not federated from host-2:5672"),
            "{text}"
        );
    }

    #[test]
    fn a_member_of_a_set_may_override_its_upstream() {
        let live = LiveSettings {
            upstreams: BTreeMap::from([(
                "a".to_owned(),
                json!({"uri": "amqp://h", "max-hops": 1}),
            )]),
            sets: BTreeMap::from([(
                "s".to_owned(),
                json!([{"upstream": "a", "max-hops": 3}, {"upstream": "gone"}]),
            )]),
            policies: BTreeMap::new(),
        };
        let fed = live.feeding(&json!({"federation-upstream-set": "s"}));
        assert_eq!(fed.len(), 1);
        assert_eq!(fed[0].1["max-hops"], 3);
        assert!(live.feeding(&json!({})).is_empty());
        let one = live.feeding(&json!({"federation-upstream": "a"}));
        assert_eq!(one[0].1["max-hops"], 1);
    }
}
