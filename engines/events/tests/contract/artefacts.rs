//! Generated files equal the tree, and are replaced only by compatible ones.

use std::fs;
use std::path::PathBuf;

use deltran_events::artefacts::{self, ArtefactError};
use deltran_events::catalog::EVENTS;
use deltran_events::schema;
use serde_json::{Value, json};

const CREATED: &str = "schemas/transactions/transaction.created.schema.json";

#[test]
fn the_tree_is_as_generated() {
    let differences = artefacts::differences(&crate::root());
    assert!(differences.is_empty(), "run `make gen`:\n{}", differences.join("\n"));
}

#[test]
fn every_event_has_a_schema_that_compiles_and_an_id_of_its_own() {
    schema::compile_all().unwrap();
    let ids: std::collections::BTreeSet<String> =
        EVENTS.iter().map(|spec| schema::document(spec)["$id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), EVENTS.len());
    assert!(ids.contains("urn:deltran:schema:transactions:window.sealed:1.0"));
    for spec in EVENTS {
        let document = schema::document(spec);
        assert!(document["description"].is_string(), "{} has no description", spec.event_type());
        assert_ne!(
            document.get("additionalProperties"),
            Some(&Value::Bool(false)),
            "{}: minor versions add",
            spec.event_type()
        );
    }
}

/// An empty folder of a test's own.
fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[test]
fn writing_brings_a_tree_into_line_and_says_what_it_did() {
    let root = folder("artefacts-write");
    let written = artefacts::write(&root).unwrap();
    assert_eq!(written.len(), artefacts::all().unwrap().len());
    assert_eq!(artefacts::write(&root).unwrap(), Vec::<String>::new());

    fs::write(root.join("setup/streams/AUDIT.json"), "{}").unwrap();
    fs::write(root.join("setup/streams/FORGOTTEN.json"), "{}").unwrap();
    fs::create_dir_all(root.join("schemas/examples/risk")).unwrap();
    fs::write(root.join("schemas/examples/risk/by-hand.json"), "{}").unwrap();
    fs::remove_file(root.join("schemas/asyncapi.yaml")).unwrap();
    assert_eq!(
        artefacts::differences(&root),
        [
            "schemas/asyncapi.yaml is missing",
            "setup/streams/AUDIT.json differs",
            "setup/streams/FORGOTTEN.json is superfluous"
        ]
    );
    assert_eq!(
        artefacts::write(&root).unwrap(),
        ["wrote schemas/asyncapi.yaml", "wrote setup/streams/AUDIT.json", "removed setup/streams/FORGOTTEN.json"]
    );
    assert!(artefacts::differences(&root).is_empty());
    assert!(root.join("schemas/examples/risk/by-hand.json").exists(), "what is written by hand stays");
}

#[test]
fn an_incompatible_schema_replaces_nothing_within_its_major_version() {
    let root = folder("artefacts-compat");
    artefacts::write(&root).unwrap();
    let published = |change: fn(&mut Value)| {
        let mut document: Value = serde_json::from_slice(&artefacts::all().unwrap()[CREATED]).unwrap();
        change(&mut document);
        fs::write(root.join(CREATED), document.to_string()).unwrap();
    };

    // The published schema knows a field that the new one does not.
    published(|schema| schema["properties"]["colour"] = json!({"type": "string"}));
    fs::remove_file(root.join("schemas/asyncapi.yaml")).unwrap();
    let Err(ArtefactError::Incompatible(lines)) = artefacts::write(&root) else {
        panic!("an incompatible schema was written")
    };
    assert_eq!(lines, [format!("{CREATED}: field colour: it is gone")]);
    assert!(!root.join("schemas/asyncapi.yaml").exists(), "nothing is written");

    // A value inside a definition that an enumeration lost.
    published(|schema| {
        let states = schema["$defs"]["TransactionState"]["oneOf"].as_array_mut().unwrap();
        states.push(json!({"const": "LOST", "type": "string"}));
    });
    let error = artefacts::write(&root).unwrap_err().to_string();
    assert!(error.contains("field state: the value \"LOST\" is gone"), "{error}");

    // Another major version, and an addition.
    published(|schema| {
        schema["properties"]["colour"] = json!({"type": "string"});
        schema["$id"] = "urn:deltran:schema:transactions:transaction.created:0.9".into();
    });
    artefacts::write(&root).unwrap();
    published(|schema| drop(schema["properties"].as_object_mut().unwrap().remove("uetr")));
    assert_eq!(artefacts::write(&root).unwrap(), [format!("wrote {CREATED}")]);
}
