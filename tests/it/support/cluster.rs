//! A PostgreSQL server of one test alone, which may be crashed, copied and restored.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use postgres::{Client, NoTls};

/// What is set on every server. The WAL writer is as slow as it can be: a commit that does not wait for
/// the log would otherwise be safe too soon for a test of what becomes of it.
const SETTINGS: &str = "
    listen_addresses = '127.0.0.1'
    unix_socket_directories = ''
    fsync = off
    shared_buffers = 16MB
    max_connections = 30
    autovacuum = off
    wal_writer_delay = 10s
";

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Sessions are ended and everything is written.
    Fast,
    /// As in a crash: nothing is written any more.
    Immediate,
}

/// A server with a data folder of its own. Stopped and removed when dropped.
pub struct Cluster {
    folder: PathBuf,
    port: u16,
    server: Option<Child>,
}

impl Cluster {
    /// Makes a server and starts it. `None` if the programs of a server are not at hand; says so.
    pub fn new(name: &str) -> Option<Self> {
        if program("initdb").is_none() {
            eprintln!("{name}: skipped, ETL_DEV_PG_BIN does not say where initdb is");
            return None;
        }
        let mut cluster = Self::empty(name);
        let data = cluster.data();
        cluster.run("initdb", ["-U", "postgres", "-A", "trust", "-E", "UTF8"], |command| {
            command.args(["--locale=C.UTF-8", "--no-sync", "-D"]).arg(&data);
        });
        cluster.configure(SETTINGS);
        cluster.start();
        Some(cluster)
    }

    /// A folder and a free port.
    fn empty(name: &str) -> Self {
        let folder = env::temp_dir().join(format!("etl_it_{name}_{}", process::id()));
        let _ = fs::remove_dir_all(&folder);
        let cluster = Self { folder, port: free_port(), server: None };
        // By the user who is to write into it.
        cluster.run_tool("mkdir", [cluster.folder.as_os_str()]);
        cluster
    }

    /// The URL of the server.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The data folder.
    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// What the server says.
    fn server_log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// Adds settings, which count from the next start on.
    pub fn configure(&self, settings: &str) {
        let path = self.data().join("postgresql.conf");
        let text = fs::read_to_string(&path).expect("read the settings");
        fs::write(path, text + settings).expect("write the settings");
    }

    /// Starts the server and waits until it takes writes or, as a standby, reads.
    pub fn start(&mut self) {
        let data = self.data();
        let mut command = server_command("postgres");
        let log = File::create(self.server_log()).expect("create a log");
        command.arg("-D").arg(data).arg("-p").arg(self.port.to_string()).stderr(log);
        // Not by pg_ctl, so that it ends with the tests when these are interrupted.
        self.server = Some(command.spawn().expect("start PostgreSQL"));
        let _ = self.connect();
    }

    /// Connects as soon as the server answers.
    pub fn connect(&mut self) -> Client {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let err = match Client::connect(&self.url(), NoTls) {
                Ok(client) => return client,
                Err(err) => err,
            };
            let server = self.server.as_mut().expect("a server that was started");
            let ended = server.try_wait().expect("ask for the exit code").is_some();
            if ended || Instant::now() > deadline {
                let log = fs::read_to_string(self.server_log()).unwrap_or_default();
                panic!("no answer of PostgreSQL: {err}\n{log}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the server and waits for its end.
    pub fn stop(&mut self, how: Stop) {
        assert!(self.try_stop(how), "PostgreSQL does not end");
    }

    fn try_stop(&mut self, how: Stop) -> bool {
        let Some(mut server) = self.server.take() else { return true };
        let signal = if how == Stop::Fast { "-INT" } else { "-QUIT" };
        let _ = Command::new("kill").args([signal, &server.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if matches!(server.try_wait(), Ok(Some(_))) {
                return true;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let _ = server.kill();
        let _ = server.wait();
        false
    }

    /// Stops the server and starts it again, on what it has written until then.
    pub fn restart(&mut self, how: Stop) {
        self.stop(how);
        self.start();
    }

    /// Copies the data folder of the stopped server, as a snapshot of its volume does.
    pub fn save_volume(&self, name: &str) {
        assert!(self.server.is_none(), "the copy of a running server is worth nothing");
        let (data, copy) = (self.data(), self.folder.join(name));
        self.run_tool("cp", [OsStr::new("-a"), data.as_os_str(), copy.as_os_str()]);
    }

    /// Puts a copy of the data folder into the place of the present one.
    pub fn restore_volume(&self, name: &str) {
        assert!(self.server.is_none(), "the server still runs on the volume");
        fs::remove_dir_all(self.data()).expect("remove the data folder");
        fs::rename(self.folder.join(name), self.data()).expect("move the copy to its place");
    }

    /// Keeps the log for a recovery to a point in time.
    pub fn keep_log(&mut self) {
        let log = self.folder.join("log");
        self.run_tool("mkdir", [log.as_os_str()]);
        let copy = format!("cp %p {}/%f", log.display());
        self.configure(&format!("archive_mode = on\narchive_command = '{copy}'\n"));
        self.restart(Stop::Fast);
    }

    /// Copies the data folder of the running server.
    pub fn back_up(&self, name: &str) {
        self.base_backup(&self.folder.join(name), &[]);
    }

    /// Starts the stopped server on the backup of this name and what the log has up to this restore
    /// point.
    pub fn recover(&mut self, name: &str, restore_point: &str) {
        self.restore_volume(name);
        let copy = format!("cp {}/%f %p", self.folder.join("log").display());
        self.configure(&format!(
            "restore_command = '{copy}'
             recovery_target_name = '{restore_point}'
             recovery_target_action = 'promote'\n"
        ));
        let signal = self.data().join("recovery.signal");
        self.run_tool("touch", [signal.as_os_str()]);
        self.start();
        self.wait_until_writable();
    }

    /// Makes a standby of this server, and starts it.
    pub fn make_standby(&self, name: &str) -> Self {
        let mut standby = Self::empty(name);
        self.base_backup(&standby.data(), &["-R"]);
        standby.start();
        standby
    }

    /// Makes the server of a standby.
    pub fn promote(&mut self) {
        self.connect().batch_execute("SELECT pg_promote()").expect("promote the standby");
        self.wait_until_writable();
    }

    fn wait_until_writable(&mut self) {
        let mut client = self.connect();
        let deadline = Instant::now() + Duration::from_secs(30);
        while client.query_one("SELECT pg_is_in_recovery()", &[]).expect("ask the server").get(0) {
            assert!(Instant::now() < deadline, "PostgreSQL is still in recovery after 30 s");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn base_backup(&self, folder: &Path, more: &[&str]) {
        let port = self.port.to_string();
        let server = ["-h", "127.0.0.1", "-U", "postgres", "-p", &port];
        self.run("pg_basebackup", server, |command| {
            command.args(["--no-sync", "-c", "fast"]).args(more).arg("-D").arg(folder);
        });
    }

    /// Runs a program of the server to its end, which is to succeed.
    fn run<const N: usize>(&self, name: &str, args: [&str; N], more: impl FnOnce(&mut Command)) {
        let mut command = server_command(name);
        more(command.args(args));
        self.run_command(command);
    }

    /// Runs any other program as the user of the server.
    fn run_tool<const N: usize>(&self, name: &str, args: [&OsStr; N]) {
        let mut command = as_server_user(Path::new(name));
        command.args(args);
        self.run_command(command);
    }

    fn run_command(&self, mut command: Command) {
        let output = command.output().expect("start the command");
        let folder = self.folder.display();
        assert!(output.status.success(), "in {folder}: {command:?}: {output:?}");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // A panic in here would hide why the test failed.
        self.try_stop(Stop::Immediate);
        if let Err(err) = fs::remove_dir_all(&self.folder) {
            eprintln!("could not remove {}: {err}", self.folder.display());
        }
    }
}

/// A port on which nobody listens, and which no connection is given by itself while the server is
/// restarted.
fn free_port() -> u16 {
    std::iter::repeat_with(|| fastrand::u16(20_000..30_000))
        .take(100)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}

/// Returns the value of a variable that `dev/servers` sets.
fn setting(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// A program of the server, if it is known where it is.
fn program(name: &str) -> Option<PathBuf> {
    Some(Path::new(&setting("ETL_DEV_PG_BIN")?).join(name))
}

fn server_command(name: &str) -> Command {
    let mut command = as_server_user(&program(name).expect("looked for it at the start"));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// PostgreSQL refuses root.
fn as_server_user(program: &Path) -> Command {
    let mut command = match setting("ETL_DEV_PG_USER") {
        None => Command::new(program),
        Some(user) => {
            let mut command = Command::new("setpriv");
            let user = format!("--reuid={user}");
            command.args([&user, "--regid=nogroup", "--clear-groups"]).arg(program);
            command
        }
    };
    // A folder that this user can enter.
    command.current_dir("/");
    command
}
