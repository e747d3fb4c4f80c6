//! The App's own calls: its JWT, and where it is installed.

use super::*;
use crate::emulator::generate_rsa_pem;

const EXPIRED: &str = "'Expiration time' claim ('exp') must be a numeric value representing the future time at which the assertion expires";
const TOO_FAR: &str = "'Expiration time' claim ('exp') is too far in the future";
const ISSUED: &str = "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued";
const GARBAGE: &str = "A JSON web token could not be decoded";

#[tokio::test]
async fn the_windows_of_the_app_jwt() {
    let world = World::new().await;
    let (app, now) = (world.app.0, world.now());
    for (claims, message) in [
        (json!({"iss": app, "iat": now - 700, "exp": now}), EXPIRED),
        (json!({"iss": app, "iat": now, "exp": "soon"}), EXPIRED),
        (json!({"iss": app, "iat": now}), EXPIRED),
        (json!({"iss": app, "iat": now, "exp": now + 601}), TOO_FAR),
        (json!({"iss": app, "iat": now, "exp": i64::MAX}), TOO_FAR),
        (json!({"iss": app, "iat": now + 1, "exp": now + 60}), ISSUED),
        (json!({"iss": app, "iat": 1.5, "exp": now + 60}), ISSUED),
        (json!({"iss": app, "exp": now + 60}), ISSUED),
        (json!({"iat": now, "exp": now + 60}), GARBAGE),
        (json!([1]), GARBAGE),
    ] {
        let answer = world
            .send(Method::GET, "/app", &format!("Bearer {}", world.jwt_of(&claims)), None)
            .await;
        assert_eq!((answer.status, answer.message().as_str()), (401, message), "{claims}");
        assert_eq!(answer.json()["status"], "401");
    }
    let on_the_edge = world.jwt_of(&json!({"iss": app, "iat": now, "exp": now + 600}));
    assert_eq!(
        world.send(Method::GET, "/app", &format!("bearer {on_the_edge}"), None).await.status,
        200
    );
    world.advance(600);
    let late = world.send(Method::GET, "/app", &format!("Bearer {on_the_edge}"), None).await;
    assert_eq!(
        late.message(),
        EXPIRED,
        "a signature that was seen before does not outlive its time"
    );
}

#[tokio::test]
async fn the_issuer_is_the_id_or_the_client_id() {
    let world = World::new().await;
    let (now, client_id) = (world.now(), world.github.client_id(world.app).unwrap());
    for issuer in [json!(world.app.0), json!(world.app.to_string()), json!(client_id)] {
        let jwt = world.jwt_of(&json!({"iss": issuer, "iat": now, "exp": now + 60}));
        let answer = world.send(Method::GET, "/app", &format!("Bearer {jwt}"), None).await;
        assert_eq!((answer.status, &answer.json()["slug"]), (200, &json!("octo-sts")), "{issuer}");
        assert!(
            !answer.headers.contains_key("x-ratelimit-limit"),
            "calls of the App have no quota"
        );
    }
    let jwt = world.jwt_of(&json!({"iss": 5, "iat": now, "exp": now + 60}));
    let answer = world.send(Method::GET, "/app", &format!("Bearer {jwt}"), None).await;
    assert_eq!((answer.status, answer.message().as_str()), (404, "Integration not found"));
}

#[tokio::test]
async fn only_the_apps_keys_sign_for_it() {
    let world = World::new().await;
    let claims = json!({"iss": world.app.0, "iat": world.now(), "exp": world.now() + 60});
    let (other_pem, other_key) = generate_rsa_pem();
    let by_other = format!("Bearer {}", sign(&other_pem, r#"{"alg":"RS256"}"#, &claims));
    let by_own = format!("Bearer {}", world.jwt_of(&claims));
    let none = format!("Bearer {}", sign(&world.pem, r#"{"alg":"none"}"#, &claims));
    for bad in [
        by_other.as_str(),
        &none,
        "Bearer x",
        "Bearer a.b.c",
        "Bearer",
        "",
        "Basic eDp5",
        &by_own.replace("Bearer", "token"),
    ] {
        let answer = world.send(Method::GET, "/app", bad, None).await;
        assert_eq!((answer.status, answer.message().as_str()), (401, GARBAGE), "{bad}");
    }
    assert!(world.github.add_key(world.app, other_key));
    for good in [&by_other, &by_own] {
        assert_eq!(world.send(Method::GET, "/app", good, None).await.status, 200);
    }
    assert!(world.github.remove_keys(world.app));
    assert_eq!(world.send(Method::GET, "/app", &by_own, None).await.status, 401);
}

#[tokio::test]
async fn installations_are_found_by_owner_and_repository() {
    let world = World::new().await;
    world.github.user("mona");
    let of_mona =
        world.github.install(world.app, "mona", &Selection::Only(vec!["one".into()]), &[]);
    world.github.repo("mona", "two", Visibility::Public);
    for (path, found) in [
        ("/orgs/OCTO-org/installation", Some(world.installation)),
        ("/users/octo-org/installation", Some(world.installation)),
        ("/repos/octo-org/Hello/installation", Some(world.installation)),
        ("/users/mona/installation", Some(of_mona)),
        ("/orgs/mona/installation", None),
        ("/repos/mona/one/installation", Some(of_mona)),
        ("/repos/mona/two/installation", None),
        ("/users/nobody/installation", None),
        ("/repos/octo-org/nothing/installation", None),
    ] {
        let answer = world.as_app(Method::GET, path, None).await;
        let wanted = found.map_or((404, Value::Null), |id| (200, json!(id.0)));
        assert_eq!((answer.status, answer.json()["id"].clone()), wanted, "{path}");
    }
    let mona =
        world.as_app(Method::GET, &format!("/app/installations/{of_mona}"), None).await.json();
    assert_eq!(
        (&mona["target_type"], &mona["repository_selection"]),
        (&json!("User"), &json!("selected"))
    );
    assert_eq!((&mona["app_id"], &mona["account"]["login"]), (&json!(world.app.0), &json!("mona")));
    assert!(world.github.uninstall(of_mona));
    assert_eq!(
        world.as_app(Method::GET, "/users/mona/installation", None).await.message(),
        "Not Found"
    );
}

#[tokio::test]
async fn lists_come_in_pages() {
    let world = World::new().await;
    for at in 0..34 {
        world.github.install(world.app, &format!("org-{at}"), &Selection::All, &[]);
    }
    let first = world.as_app(Method::GET, "/app/installations", None).await;
    assert_eq!(first.json().as_array().unwrap().len(), 30);
    assert!(first.header("link").contains("page=2>; rel=\"next\""), "{}", first.header("link"));
    let second = world.as_app(Method::GET, "/app/installations?page=2", None).await;
    assert_eq!(second.json().as_array().unwrap().len(), 5);
    assert!(
        second.header("link").contains("rel=\"prev\"") && !second.header("link").contains("next")
    );
    let one = world.as_app(Method::GET, "/app/installations?per_page=100", None).await;
    assert_eq!((one.json().as_array().unwrap().len(), one.header("link")), (35, ""));
}
