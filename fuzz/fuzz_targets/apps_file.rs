//! The file of Apps: any text is refused at a place, or has Apps with different ids and names. No
//! error repeats what a variable holds.
#![no_main]

use std::{collections::HashSet, sync::LazyLock};

use libfuzzer_sys::fuzz_target;
use octo_sts::{
    config::{Environment, apps::fuzzing::parse},
    emulator::generate_rsa_pem,
};
use octo_sts_fuzz::{lines, seed};

const CANARY: &str = "canary-0123456789";

static ENVIRONMENT: LazyLock<Environment> = LazyLock::new(|| {
    let (pem, _) = generate_rsa_pem();
    [("PEM", pem.as_str()), ("X", CANARY), ("ID", "7"), ("EMPTY", "")].into_iter().collect()
});

fn seeds() {
    let app = "{app_id: 1, app_name: ci, private_key: '${PEM}'}";
    seed(
        "apps_file",
        [
            include_str!("../../tests/corpus/deployments/terraform/config.yaml").to_owned(),
            format!(
                "orgs: [{{name: a, apps: [{app}]}}, {{name: '*', apps: [{{app_id: '${{ID}}', private_key: '${{PEM}}'}}]}}]\n"
            ),
            format!("Orgs:\n- NAME: ${{X}}\n  apps:\n  - {app}\n  - app_id: 2\n    private_key: ${{X}}\n"),
        ],
    );
}

fuzz_target!(init: seeds(), |text: &str| {
    // Paths would lead to files of this machine, and some never end.
    if text.to_ascii_lowercase().contains("key_file") {
        return;
    }
    match parse(text.as_bytes(), &ENVIRONMENT) {
        Ok(apps) => {
            let all: Vec<_> = apps.iter().collect();
            let ids: HashSet<_> = all.iter().map(|app| app.id).collect();
            let names: HashSet<_> = all.iter().filter_map(|app| app.name.as_ref()).collect();
            let named = all.iter().filter(|app| app.name.is_some()).count();
            assert!(!all.is_empty() && ids.len() == all.len() && names.len() == named);
        }
        Err(errors) => {
            assert!(errors.iter().count() > 0);
            for invalid in errors.iter() {
                let line = invalid.line().unwrap_or(1) as usize;
                assert!((1..=lines(text)).contains(&line), "{invalid}");
                assert!(!invalid.to_string().contains(CANARY), "{invalid}");
            }
        }
    }
});
