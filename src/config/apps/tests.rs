//! Which Apps there are: by the environment, and by the file.

mod go;

use super::{file::parse, *};
use crate::{
    config::{Config, Environment, key::tests::rsa_pem},
    tests::Folder,
};

/// What `pairs` say of the Apps, with a domain.
fn read(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let domain = [("STS_DOMAIN", "sts.example.com")];
    Config::read(&domain.iter().chain(pairs).copied().collect())
        .map_err(|errors| errors.0.iter().map(ToString::to_string).collect())
}

/// The same, with one App and a key.
fn with_key(pairs: &[(&str, &str)]) -> Result<Config, Vec<String>> {
    let pem = rsa_pem();
    let least = [("GITHUB_APP_IDS", "42"), ("APP_SECRET_CERTIFICATE_ENV_VAR", &*pem)];
    read(&least.into_iter().chain(pairs.iter().copied()).collect::<Vec<_>>())
}

fn ids(apps: &Apps) -> Vec<u64> {
    apps.iter().map(|app| app.id.0).collect()
}

/// An environment with a key in `PEM` and one in `A_PEM_2`.
fn variables() -> Environment {
    let pem = rsa_pem();
    [("PEM", &*pem), ("A_PEM_2", &*pem), ("ID", "7"), ("EMPTY", ""), ("NESTED", "${ID}")]
        .into_iter()
        .collect()
}

/// The errors of a file, a line each.
fn errors(text: &str) -> String {
    let errors = parse(text.as_bytes(), &variables()).unwrap_err();
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

#[test]
fn an_app_key_comes_from_one_place() {
    let folder = Folder::new();
    let file = folder.file("app.pem", &rsa_pem());
    let by_file = |path: &str| {
        with_key(&[("APP_SECRET_CERTIFICATE_ENV_VAR", ""), ("APP_SECRET_CERTIFICATE_FILE", path)])
    };
    assert!(by_file(&file).is_ok());
    for (result, expected) in [
        (
            by_file(""),
            "APP_SECRET_CERTIFICATE_FILE or APP_SECRET_CERTIFICATE_ENV_VAR is required: the App's private key",
        ),
        (by_file("/nowhere"), "APP_SECRET_CERTIFICATE_FILE names a file that is not there"),
        (
            with_key(&[("APP_SECRET_CERTIFICATE_FILE", &file)]),
            "APP_SECRET_CERTIFICATE_FILE and APP_SECRET_CERTIFICATE_ENV_VAR must not both be set",
        ),
        (
            with_key(&[("APP_SECRET_CERTIFICATE_ENV_VAR", "PRIVATE_KEY")]),
            "APP_SECRET_CERTIFICATE_ENV_VAR must hold the App's private key as PEM text, from -----BEGIN to -----END",
        ),
    ] {
        assert_eq!(result.unwrap_err(), [expected]);
    }
}

#[test]
fn several_apps_share_a_key() {
    let pem = rsa_pem();
    let apps =
        |text: &str| read(&[("GITHUB_APP_IDS", text), ("APP_SECRET_CERTIFICATE_ENV_VAR", &pem)]);
    for (text, expected) in [
        ("1", &[1][..]),
        ("1,2,3", &[1, 2, 3]),
        (" 1, 2 ", &[1, 2]),
        ("0x10,1_000,+7", &[16, 1000, 7]),
        ("010,0o10,0b11", &[8, 3]),
        ("9223372036854775807", &[9_223_372_036_854_775_807]),
    ] {
        let config = apps(text).unwrap();
        assert_eq!(ids(&config.apps), expected, "{text}");
        assert!(config.apps.iter().all(|app| app.name.is_none()));
    }
    for text in [
        "1,",
        ",1",
        "1,,2",
        "1;2",
        "-1",
        "0",
        "1.0",
        "x",
        "1__0",
        "_1",
        "1_",
        "0x",
        "9223372036854775808",
    ] {
        let expected =
            "GITHUB_APP_IDS must be the ids of the Apps, positive numbers separated by commas";
        assert_eq!(apps(text).unwrap_err(), [expected], "{text}");
    }
    let warnings = apps("5,6,5").unwrap().warnings;
    assert_eq!(
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["GITHUB_APP_IDS names the App 5 more than once; the first entry counts"]
    );
}

#[test]
fn an_empty_entry_of_kms_keys_leaves_its_app_out() {
    let ids = [AppId(1), AppId(2), AppId(3)];
    assert_eq!(with_keys(&ids, "a, , c"), Ok(vec![(AppId(1), "a"), (AppId(3), "c")]));
    assert_eq!(with_keys(&ids, ",b,"), Ok(vec![(AppId(2), "b")]));
    for (keys, expected) in [
        (",,", "must have a key for at least one App"),
        ("a,b", "must have an entry for each of GITHUB_APP_IDS: it has 2, and there are 3 ids"),
        ("a,b,c,", "must have an entry for each of GITHUB_APP_IDS: it has 4, and there are 3 ids"),
    ] {
        assert_eq!(with_keys(&ids, keys).unwrap_err(), expected, "{keys}");
    }
}

#[test]
fn kms_settings_are_checked() {
    let kms = |pairs: &[(&str, &str)]| {
        let ids = [("GITHUB_APP_IDS", "1,2")];
        read(&ids.iter().chain(pairs).copied().collect::<Vec<_>>()).unwrap_err()
    };
    for (provider, expected) in [
        (
            "gcp",
            "KMS_KEYS must name a key version of Google Cloud KMS: \
             projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/V",
        ),
        (
            "AKV",
            "KMS_KEYS must name a key of Azure Key Vault: https://VAULT/keys/NAME or \
             https://VAULT/keys/NAME/VERSION",
        ),
        ("azure", "KMS_PROVIDER must be gcp or aws or akv"),
    ] {
        assert_eq!(kms(&[("KMS_KEYS", "a,b"), ("KMS_PROVIDER", provider)]), [expected]);
    }
    assert_eq!(
        kms(&[("KMS_KEYS", "a,b"), ("APP_SECRET_CERTIFICATE_FILE", "/nowhere")]),
        ["APP_SECRET_CERTIFICATE_FILE and KMS_KEYS must not both be set"]
    );
    assert_eq!(read(&[("KMS_KEYS", "key")]).unwrap_err().len(), 1);
}

#[test]
fn the_file_overrides_the_other_variables() {
    let folder = Folder::new();
    let key = folder.file("key.pem", &rsa_pem());
    let text = format!("orgs: [{{name: '*', apps: [{{app_id: 9, private_key_file: '{key}'}}]}}]\n");
    let file = folder.file("apps.yaml", &text);
    let config = read(&[
        ("APP_CONFIG_FILE", &file),
        ("GITHUB_APP_IDS", "none"),
        ("KMS_KEYS", "a,b"),
        ("KMS_PROVIDER", "nobody's"),
        ("APP_SECRET_CERTIFICATE_FILE", "/nowhere"),
    ])
    .unwrap();
    assert_eq!(ids(&config.apps), [9]);
    assert_eq!(config.apps.file().unwrap().path().to_str(), Some(&*file));
    assert_eq!(
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "GITHUB_APP_IDS has no effect, since APP_CONFIG_FILE is set",
            "APP_SECRET_CERTIFICATE_FILE has no effect, since APP_CONFIG_FILE is set",
            "KMS_KEYS has no effect, since APP_CONFIG_FILE is set",
        ]
    );
    let missing = read(&[("APP_CONFIG_FILE", "/nowhere")]).unwrap_err();
    assert_eq!(
        missing,
        [
            "APP_CONFIG_FILE names a file that cannot be used:\n    the file cannot be read: entity not found"
        ]
    );
}

#[test]
fn a_file_lists_organizations_and_their_apps() {
    let folder = Folder::new();
    let file = folder.file("key.pem", &rsa_pem());
    let indented = rsa_pem().replace('\n', "\n            ");
    let text = format!(
        r#"
orgs:
  - name: Org-A # compared without letter case
    apps:
      - app_id: 111
        app_name: ci-a
        private_key: ${{PEM}}
      - app_id: "${{ID}}"
        app_name: ""
        private_key: |
            {indented}
      - APP_ID: "12"
        App_Name: null
        kms_key: ""
        private_key_file: {file}
  - name: "*"
    Apps:
      - app_id: 9
        app_name: ${{NESTED}}
        private_key: ${{A_PEM_2}}
"#
    );
    let apps = parse(text.as_bytes(), &variables()).unwrap();
    let names: Vec<_> =
        apps.iter().map(|app| (app.id.0, app.name.as_ref().map(AppName::as_str))).collect();
    // What a variable holds is not expanded in its turn.
    assert_eq!(names, [(111, Some("ci-a")), (7, None), (12, None), (9, Some("${ID}"))]);
    assert_eq!(apps.listed[0].0, "org-a".parse().unwrap());
    assert_eq!((apps.listed[0].1.len(), apps.others.len()), (3, 1));
    assert!(apps.iter().all(|app| app.key == apps.others[0].key));
    assert!(!format!("{apps:?}").contains("BEGIN"));
}

#[test]
fn every_error_of_a_file_is_reported_where_it_is() {
    insta::assert_snapshot!(errors(
        "orgs:
  - name: org-a
    apps:
      - app_id: 0
        private_key: ${PEM}
      - app_id: 2
        app_name: '123'
        private_key: ${PEM}
        kms_key: key
      - app_id: 3
        private_key: ${UNSET}
      - private_key_file: /nowhere/key.pem
        app_idd: 4
      - app_id: 5
        private_key: no key
      - app_id: 6
        private_key: ${EMPTY}
  - name: ORG-A
    apps: []
  - name: b/c
    Name: d
    apps:
      - app_id: 3
        app_name: [x]
        private_key: ${PEM}
  - name: ''
  - apps: 5
  - org
"
    ), @r"
    line 4, column 17: expected the App's id, a positive number
    line 7, column 19: an App's name is not a number: numbers pin Apps by their id
    line 8, column 22: expected exactly one of `kms_key`, `private_key` and `private_key_file`
    line 11, column 22: the environment variable UNSET is not set
    line 12, column 9: expected the App's `app_id`
    line 12, column 27: `private_key_file` names a file that is not there
    line 13, column 9: unknown key; expected one of app_id, app_name, kms_key, private_key, private_key_file
    line 15, column 22: `private_key` must hold the App's private key as PEM text, from -----BEGIN to -----END
    line 16, column 9: expected exactly one of `kms_key`, `private_key` and `private_key_file`
    line 18, column 11: this organization is given already in line 2
    line 19, column 11: expected at least one App in `apps`
    line 21, column 5: this key is given twice, in different letter case
    line 23, column 17: this `app_id` is given already in line 10
    line 24, column 19: expected a string, found a list
    line 26, column 5: expected at least one App in `apps`
    line 26, column 11: an owner is 1 to 64 of A-Z a-z 0-9 _ -; `*` stands for all others
    ");
}

#[test]
fn input_that_is_not_a_file_of_apps() {
    for (text, expected) in [
        ("", "the file is empty"),
        ("[]\n", "line 1, column 1: expected the key `orgs`, found a list"),
        ("{}\n", "line 1, column 1: expected at least one organization in `orgs`"),
        ("orgs:\n", "line 1, column 5: expected at least one organization in `orgs`"),
        ("orgs: []\n", "line 1, column 7: expected at least one organization in `orgs`"),
        ("orgs: {name: a}\n", "line 1, column 7: expected at least one organization in `orgs`"),
        ("orgs: [\n", "line 1, column 7: this is not well-formed YAML"),
        ("apps: []\n", "line 1, column 1: unknown key; expected one of orgs"),
    ] {
        let found = errors(text);
        assert!(found.starts_with(expected), "{text}: {found}");
    }
    let app = "orgs: [{name: a, apps: [{app_id: 1, private_key: '${PEM}'}]}]\n";
    assert!(parse(app.as_bytes(), &variables()).is_ok());
    // Half a file, as it may be seen while it is written.
    for end in 1..app.len() - 1 {
        assert!(parse(&app.as_bytes()[..end], &variables()).is_err(), "{end}");
    }
    let second = format!("{app}---\n{app}");
    assert_eq!(errors(&second), "line 2, column 1: there is more than one document");
}

#[test]
fn an_id_and_a_name_are_given_once_in_the_whole_file() {
    let app = |rest: &str| format!("{{private_key: '${{PEM}}', {rest}}}");
    let text = format!(
        "orgs: [{{name: a, apps: [{}]}},\n {{name: b, apps: [{}]}}]\n",
        app("app_id: 1, app_name: x"),
        [app("app_id: '${ID}', app_name: x"), app("app_id: 1, app_name: X")].join(",\n  "),
    );
    insta::assert_snapshot!(errors(&text), @r"
    line 2, column 70: this `app_name` is given already in line 1
    line 3, column 35: this `app_id` is given already in line 1
    ");
}

#[test]
fn variables_are_expanded_as_the_go_service_expands_them() {
    let text = |text: &str| file::expand(text, &variables());
    for (given, expected) in [
        ("a", "a"),
        ("", ""),
        ("${ID}", "7"),
        ("-${ID}-${ID}${EMPTY}-", "-7-7-"),
        ("$ID $$ $", "$ID $$ $"),
        ("${}", "${}"),
        ("${ID", "${ID"),
        ("${I D}", "${I D}"),
        ("${ID-x}", "${ID-x}"),
        ("${X${ID}}", "${X7}"),
        ("$${ID}", "$7"),
        ("${NESTED}", "${ID}"),
    ] {
        assert_eq!(text(given).as_deref(), Ok(expected), "{given}");
    }
    assert_eq!(text("${ID}${UNSET}"), Err("UNSET".to_owned()));
}
