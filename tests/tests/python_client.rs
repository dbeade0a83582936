//! The client of examples/python against the real program: it pays, watches, and repeats without harm. Needs python3 and a
//! package index; without them this test fails and says so.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use deltran_kernel::{Clock, IdSource, SystemClock, SystemIds};
use deltran_tests::node::{Deltran, PATIENCE, Ran, id};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("examples/python")
}

async fn run(command: &mut Command) -> Result<Ran, String> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE * 2, command.output()).await.map_err(|_| "no end in time".to_owned())?;
    let output = output.map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, error) = (text(&output.stdout), text(&output.stderr));
    Ok(Ran { json: Value::Null, out, error, code: output.status.code().unwrap_or(-1) })
}

/// A Python with the packages of requirements.txt, below the target folder; made once for each content of that file.
async fn python() -> PathBuf {
    let requirements = examples().join("requirements.txt");
    let name = id(&std::fs::read_to_string(&requirements).unwrap()).simple().to_string();
    let test = std::env::current_exe().unwrap();
    let folder = test.ancestors().nth(3).unwrap().join("python-client");
    let (venv, program) = (folder.join(&name), folder.join(&name).join("bin/python"));
    let complete = venv.join("complete");
    if complete.is_file() {
        return program;
    }
    // An unfinished one of a run that was ended; where there is none, there is nothing to do.
    let _ = std::fs::remove_dir_all(&venv);
    std::fs::create_dir_all(&folder).unwrap();
    let mut making = Command::new("python3");
    making.args(["-m", "venv"]).arg(&venv);
    let mut installing = Command::new(&program);
    installing.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"]).arg(&requirements);
    for (what, command) in
        [("python3 -m venv", &mut making), ("pip install -r examples/python/requirements.txt", &mut installing)]
    {
        match run(command).await {
            Ok(ran) if ran.code == 0 => {}
            Ok(ran) => {
                panic!("{what} failed; python3 with venv and a package index are needed:\n{}{}", ran.out, ran.error)
            }
            Err(error) => panic!("{what} cannot be run; python3 with venv and a package index are needed: {error}"),
        }
    }
    std::fs::write(complete, "").unwrap();
    program
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bank_in_python_pays_and_watches() {
    let python = python().await;
    let node = Deltran::start("").await;
    let script = async |name: &str, arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(examples().join(name)).args(arguments).current_dir(node.path()).env("PYTHONDONTWRITEBYTECODE", "1");
        run(&mut command).await.unwrap_or_else(|e| panic!("{name}: {e}"))
    };
    node.banks(&[("ALFAAEXX", "1000.00", "1000.00"), ("BRAVINXX", "1000.00", "1000.00")]).await;
    let window = SystemIds::new().next_id(SystemClock.now());
    node.open_window(window).await;

    let pay = ["--payer", "ALFAAEXX", "--payee", "BRAVINXX", "--currency", "USD", "--amount"];
    let first = script("client.py", &[&pay[..], &["12.50", "--count", "5"]].concat()).await;
    assert_eq!(first.code, 0, "{first:?}");
    let lines = |ran: &Ran, begin: &str, end: &str| {
        ran.out.lines().filter(|line| line.starts_with(begin) && line.contains(end)).count()
    };
    assert_eq!(lines(&first, "outcome ", &format!(" COMMITTED {window} new")), 5, "{first:?}");
    assert_eq!(lines(&first, "event ", " transaction.created "), 5, "{first:?}");
    assert_eq!(lines(&first, "5 submitted, 5 accepted, 0 refused, 5 new", ""), 1, "{first:?}");

    // The same five again and one more: nothing is paid twice.
    let again = script("client.py", &[&pay[..], &["12.50", "--count", "6"]].concat()).await;
    assert_eq!(again.code, 0, "{again:?}");
    assert_eq!((lines(&again, "outcome ", " replayed"), lines(&again, "event ", "")), (5, 1), "{again:?}");
    assert_eq!(node.transactions().await.len(), 6);

    let conflict = script("client.py", &[&pay[..], &["13.50"]].concat()).await;
    assert_eq!(conflict.code, 1, "{conflict:?}");
    let above = script("client.py", &[&pay[..], &["999999.00", "--reference", "ABOVE"]].concat()).await;
    assert_eq!((above.code, lines(&above, "event ", " transaction.rejected ")), (1, 1), "{above:?}");
    let nobody = script("client.py", &[&pay[..], &["1.00", "--endpoint", "http://127.0.0.1:1"]].concat()).await;
    assert_eq!(nobody.code, 3, "{nobody:?}");

    let reflected = script("reflect.py", &[]).await;
    assert_eq!(reflected.code, 0, "{reflected:?}");
    for service in ["deltran.token.v1.TokenService", "deltran.platform.v1.PlatformService", "grpc.health.v1.Health"] {
        assert_eq!(lines(&reflected, &format!("service {service}"), ""), 1, "{reflected:?}");
    }
    assert!(reflected.out.contains("\"engine\": \"settlement\""), "{reflected:?}");
    node.verify().await;
}
