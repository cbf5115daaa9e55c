//! The presence of the platform's application.

use super::*;

#[tokio::test]
async fn the_application_goes_and_comes_back() {
    let mut service = Service::new().await;
    let (_subscription, mut peer) = service.start().await;
    peer.login().await;
    let from = "from='finesse@d.example/x' to='1205@d.example'";
    let (here, gone) = (
        format!("<presence {from}/>"),
        format!("<presence type='unavailable' {from}/>"),
    );
    peer.send(&format!(
        "{here}<presence type='unavailable' from='else@d.example/x'/>{gone}{gone}{here}"
    ))
    .await;
    peer.send(&note(
        "/finesse/api/User/1205",
        "<Update><event>DELETE</event></Update>",
    ))
    .await;
    assert_eq!(service.next().await, Happening::Up);
    let mut bodies = Vec::new();
    while bodies.last() != Some(&UpdateBody::UserDeleted) {
        match service.next().await {
            Happening::Update(update) => bodies.push(update.body),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        bodies,
        [
            UpdateBody::Application { available: false },
            UpdateBody::Application { available: true },
            UpdateBody::UserDeleted
        ]
    );
}

#[tokio::test]
async fn an_application_that_has_gone_before_the_sign_in_is_known_and_one_of_two_addresses_is_enough()
 {
    let gone = |resource: &str| {
        format!(
            "<presence type='unavailable' from='finesse@d.example/{resource}' to='1205@d.example'/>"
        )
    };
    let here = |resource: &str| {
        format!("<presence from='finesse@d.example/{resource}' to='1205@d.example'/>")
    };
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    peer.authenticate().await;
    peer.greet(BIND).await;
    peer.until("</iq>").await;
    // Before the service has answered the first ping.
    peer.send(&(BOUND.to_owned() + &gone("a") + PONG)).await;
    assert_eq!(service.next().await, Happening::Up);
    let told = async |service: &mut Service| match service.next().await {
        Happening::Update(update) => update.body,
        other => panic!("{other:?}"),
    };
    let application = |available| UpdateBody::Application { available };
    assert_eq!(told(&mut service).await, application(false));
    peer.send(&(here("a") + &here("b") + &gone("b") + &gone("a")))
        .await;
    assert_eq!(told(&mut service).await, application(true));
    assert_eq!(told(&mut service).await, application(false));
    service.silent(subscription).await;
}

#[tokio::test]
async fn an_application_that_the_service_does_not_know_has_not_gone() {
    let bare = "<presence type='unavailable' from='finesse@d.example' to='1205@d.example'/>";
    let mut service = Service::new().await;
    let (subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    peer.send(&format!(
        "{bare}<presence from='finesse@d.example/a'/>{bare}"
    ))
    .await;
    let body = UpdateBody::Application { available: false };
    assert!(matches!(service.next().await, Happening::Update(update) if update.body == body));
    service.silent(subscription).await;
}

#[tokio::test]
async fn the_applications_presence_is_asked_for_once_where_it_does_not_come() {
    let mut service = Service::new().await;
    service.spec.ping_interval = Duration::from_millis(10);
    let (subscription, mut peer) = service.start().await;
    peer.login().await;
    assert_eq!(service.next().await, Happening::Up);
    let mut asked = String::new();
    for _ in 0..4 {
        asked += &peer.until("<ping").await;
        peer.send(PONG).await;
    }
    assert_eq!(
        asked.matches("'subscribe'").count() + asked.matches("\"subscribe\"").count(),
        1,
        "{asked}"
    );
    assert!(asked.contains("finesse@d.example"), "{asked}");
    service.silent(subscription).await;
}
