//! Fault switches: how a node is made to fail.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::lock;

/// Most faults that may be set on one node at a time.
const MAX_FAULTS: usize = 256;

/// Which requests a fault hits; an absent field matches all.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Part of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The body's `requestedAction` (or `state` of a User).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
}

/// One fault, as posted to `/faults`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Fault {
    /// Given by the simulator.
    pub id: u64,
    /// Node 1 or 2; absent means all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<usize>,
    /// Which requests.
    #[serde(rename = "match")]
    pub matching: Match,
    /// How many requests (or pushes) are hit before the fault ends; absent means until cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// Pause before the request is handled, milliseconds.
    pub delay_ms: u64,
    /// Answer this status and do nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Do the effect, then close the connection without an answer.
    pub drop_after_accept: bool,
    /// Close the connection without doing anything.
    pub drop_before_accept: bool,
    /// Do the effect, answer a body that is not XML.
    pub garbage: bool,
    /// Take the request and never answer.
    pub hang: bool,
    /// SystemInfo says OUT_OF_SERVICE, every other call gets 503.
    pub out_of_service: bool,
    /// The REST listener is closed.
    pub refuse: bool,
    /// Notifications are swallowed.
    pub notification_loss: bool,
    /// The notification service is closed.
    pub xmpp_down: bool,
    /// The presence of the `finesse` user is unavailable, all else works.
    pub application_gone: bool,
}

impl Fault {
    fn on_request(&self) -> bool {
        self.delay_ms > 0
            || self.status.is_some()
            || self.drop_after_accept
            || self.drop_before_accept
            || self.garbage
            || self.hang
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.status.is_some_and(|s| !(200..=599).contains(&s)) {
            return Err("status must be 200 to 599");
        }
        let switch = self.out_of_service
            || self.refuse
            || self.notification_loss
            || self.xmpp_down
            || self.application_gone;
        if !self.on_request() && !switch {
            return Err("the fault does nothing");
        }
        if self.on_request() && switch {
            return Err("set request faults and node switches as separate faults");
        }
        Ok(())
    }

    fn hits(&self, method: &str, path: &str, body: &[u8]) -> bool {
        let wanted = &self.matching;
        self.on_request()
            && wanted
                .method
                .as_deref()
                .is_none_or(|m| m.eq_ignore_ascii_case(method))
            && wanted.path.as_deref().is_none_or(|p| path.contains(p))
            && wanted
                .action
                .as_deref()
                .is_none_or(|a| action(body).is_some_and(|b| b == a))
    }
}

fn action(body: &[u8]) -> Option<String> {
    let mut found = None;
    super::xml::leaves(std::str::from_utf8(body).ok()?, |_, name, text| {
        if found.is_none() && matches!(name, "requestedAction" | "state") {
            found = Some(text.to_owned());
        }
    })
    .ok()?;
    found
}

/// What a matching fault does to one request.
#[derive(Debug, Clone, Default)]
pub struct Hit {
    /// Pause first.
    pub delay: Duration,
    /// Answer this instead.
    pub status: Option<u16>,
    /// Close without effect.
    pub drop_before: bool,
    /// Close after the effect.
    pub drop_after: bool,
    /// Spoil the body.
    pub garbage: bool,
    /// Never answer.
    pub hang: bool,
}

/// The faults of one node.
#[derive(Debug)]
pub struct NodeFaults {
    list: RwLock<Vec<Fault>>,
    any: AtomicBool,
    out_of_service: watch::Sender<bool>,
    refuse: watch::Sender<bool>,
    xmpp_down: watch::Sender<bool>,
    application_gone: watch::Sender<bool>,
    losing: AtomicBool,
    changing: Mutex<()>,
    next_id: AtomicU64,
}

impl Default for NodeFaults {
    fn default() -> Self {
        Self {
            list: RwLock::default(),
            any: AtomicBool::new(false),
            out_of_service: watch::Sender::new(false),
            refuse: watch::Sender::new(false),
            xmpp_down: watch::Sender::new(false),
            application_gone: watch::Sender::new(false),
            losing: AtomicBool::new(false),
            changing: Mutex::new(()),
            next_id: AtomicU64::new(1),
        }
    }
}

impl NodeFaults {
    /// Adds a fault and returns its id on this node.
    ///
    /// # Errors
    /// Why the fault makes no sense, or that there are too many.
    pub fn add(&self, mut fault: Fault) -> Result<u64, &'static str> {
        fault.check()?;
        let _one_change = lock(&self.changing);
        fault.id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let id = fault.id;
        {
            let mut list = self.write();
            if list.len() >= MAX_FAULTS {
                return Err("too many faults, clear some");
            }
            list.push(fault);
        }
        self.apply();
        Ok(id)
    }

    /// Removes all faults, or the one with that id.
    pub fn clear(&self, id: Option<u64>) {
        let _one_change = lock(&self.changing);
        self.write().retain(|f| id.is_some_and(|id| f.id != id));
        self.apply();
    }

    /// The faults set now.
    pub fn list(&self) -> Vec<Fault> {
        self.read().clone()
    }

    /// Whether the node is out of service.
    pub fn out_of_service(&self) -> bool {
        *self.out_of_service.borrow()
    }

    /// Follows the out-of-service switch.
    pub fn watch_service(&self) -> watch::Receiver<bool> {
        self.out_of_service.subscribe()
    }

    /// Follows the switch that closes the REST listener.
    pub fn watch_refuse(&self) -> watch::Receiver<bool> {
        self.refuse.subscribe()
    }

    /// Follows the switch that closes the notification service.
    pub fn watch_xmpp_down(&self) -> watch::Receiver<bool> {
        self.xmpp_down.subscribe()
    }

    /// Follows the switch of the `finesse` user's presence.
    pub fn watch_application(&self) -> watch::Receiver<bool> {
        self.application_gone.subscribe()
    }

    /// Whether the `finesse` user is available.
    pub fn application_is_up(&self) -> bool {
        !*self.refuse.borrow() && !*self.application_gone.borrow()
    }

    /// The faults that hit this request, together; uses up their counts.
    pub fn hit(&self, method: &str, path: &str, body: &[u8]) -> Option<Hit> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let mut hit: Option<Hit> = None;
        let mut list = self.write();
        for fault in list.iter_mut() {
            if fault.count == Some(0) || !fault.hits(method, path, body) {
                continue;
            }
            fault.count = fault.count.map(|left| left - 1);
            let hit = hit.get_or_insert_default();
            hit.delay += Duration::from_millis(fault.delay_ms);
            hit.status = hit.status.or(fault.status);
            hit.drop_before |= fault.drop_before_accept;
            hit.drop_after |= fault.drop_after_accept;
            hit.garbage |= fault.garbage;
            hit.hang |= fault.hang;
        }
        list.retain(|fault| fault.count != Some(0));
        self.any.store(!list.is_empty(), Ordering::Release);
        hit
    }

    /// Whether this push is to be swallowed; uses up the fault's count.
    pub fn swallow(&self) -> bool {
        if !self.losing.load(Ordering::Acquire) {
            return false;
        }
        let mut list = self.write();
        let Some(at) = list.iter().position(|fault| fault.notification_loss) else {
            return false;
        };
        match list[at].count.as_mut() {
            Some(left) if *left <= 1 => {
                list.remove(at);
                drop(list);
                self.apply();
            }
            Some(left) => *left -= 1,
            None => {}
        }
        true
    }

    fn apply(&self) {
        let list = self.read();
        let is = |which: fn(&Fault) -> bool| list.iter().any(which);
        let (out, refuse) = (is(|f| f.out_of_service), is(|f| f.refuse));
        let (down, losing) = (is(|f| f.xmpp_down), is(|f| f.notification_loss));
        let gone = is(|f| f.application_gone);
        self.any.store(!list.is_empty(), Ordering::Release);
        self.losing.store(losing, Ordering::Release);
        let set = |switch: &watch::Sender<bool>, to: bool| {
            switch.send_if_modified(|now| std::mem::replace(now, to) != to);
        };
        set(&self.out_of_service, out);
        set(&self.refuse, refuse);
        set(&self.xmpp_down, down);
        set(&self.application_gone, gone);
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Vec<Fault>> {
        self.list.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, Vec<Fault>> {
        self.list.write().unwrap_or_else(|e| e.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(json: &str) -> Fault {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_counted_fault_hits_matching_requests_only_and_ends() {
        let faults = NodeFaults::default();
        faults
            .add(fault(
                r#"{"status":500,"count":1,"match":{"action":"MAKE_CALL"}}"#,
            ))
            .unwrap();
        let body = b"<Dialog><requestedAction>MAKE_CALL</requestedAction></Dialog>";
        assert!(faults.hit("PUT", "/x", b"<User/>").is_none());
        assert_eq!(faults.hit("POST", "/x", body).unwrap().status, Some(500));
        assert!(faults.hit("POST", "/x", body).is_none());
        assert!(faults.list().is_empty());
    }

    #[test]
    fn switches_follow_the_list() {
        let faults = NodeFaults::default();
        let id = faults.add(fault(r#"{"outOfService":true}"#)).unwrap();
        faults
            .add(fault(r#"{"notificationLoss":true,"count":2}"#))
            .unwrap();
        assert!(faults.out_of_service());
        assert!(faults.hit("GET", "/", b"").is_none());
        faults.clear(Some(id));
        assert!(!faults.out_of_service());
        assert_eq!(
            [faults.swallow(), faults.swallow(), faults.swallow()],
            [true, true, false]
        );
        assert!(faults.add(Fault::default()).is_err());
        assert!(serde_json::from_str::<Fault>(r#"{"stauts":1}"#).is_err());
    }
}
