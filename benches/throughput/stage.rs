//! What both connectors share: one broker, one simulator process, and how processes are measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tandem::lab::{ProcessSpec, RabbitNode, RabbitOptions, ReservedPort, TandemProcess};

use crate::errors::Result;
use crate::load::{Client, Command};

/// First agent of the simulator.
/// How the commands of the preparation are to end.
const WANTED: &[&str] = &["OK", "ACCEPTED"];

const FIRST_AGENT: u64 = 1001;
/// Extension of the first agent.
const FIRST_EXTENSION: u64 = 7001;
/// Sign-ins under way at a time.
const SIGN_IN_WINDOW: usize = 50;
/// The client's address for events.
pub const DESTINATION: &str = "bench";

/// Broker and simulator.
pub struct Stage {
    /// The broker.
    pub broker: RabbitNode,
    /// Process id of the broker; its start script becomes the server.
    pub broker_pid: u32,
    /// The simulator process.
    pub simulator: TandemProcess,
    rest: ReservedPort,
    xmpp: ReservedPort,
    binary: PathBuf,
    folder: tempfile::TempDir,
    /// Instances are pairs.
    paired: bool,
}

/// Seals what the instances of a pair tell each other.
const CONTROL_KEY: &str = "a key of a benchmark, which nobody has to guess";

/// Agent number `n` of the simulator.
pub fn agent(n: u64) -> u64 {
    FIRST_AGENT + n
}

impl Stage {
    /// Starts both; `agents` is how many agents the simulator knows.
    pub async fn start(binary: &Path, agents: u64, paired: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut broker = RabbitNode::start(RabbitOptions::named("bench")).await?;
        let broker_pid = broker.pid().ok_or("the broker ended")?;
        let (rest, xmpp) = (ReservedPort::take()?, ReservedPort::take()?);
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let simulator = TandemProcess::start_spec(ProcessSpec {
            name: "tandem simulate finesse".to_owned(),
            program: binary.to_owned(),
            args: words(&format!(
                "simulate finesse --listen {} --xmpp-listen {} --agents {agents} \
                 --forced-logout-after 0s",
                rest.address(),
                xmpp.address()
            )),
            env: BTreeMap::new(),
            log: folder.path().join("simulator.log"),
        })?;
        let stage = Self {
            broker,
            broker_pid,
            simulator,
            rest,
            xmpp,
            binary: binary.to_owned(),
            folder,
            paired,
        };
        stage.wait_for_simulator().await?;
        Ok(stage)
    }

    async fn wait_for_simulator(&self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while tokio::net::TcpStream::connect(self.rest.address())
            .await
            .is_err()
        {
            if Instant::now() > deadline {
                return Err("the simulator does not listen".into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Base URL of the simulator's REST interface.
    pub fn base_url(&self) -> String {
        format!("http://{}/finesse/api", self.rest.address())
    }

    /// Starts `tandem run` as instance `name`, with that name's command queue, and waits until it
    /// answers.
    pub async fn tandem(&self, name: &str) -> Result<TandemProcess> {
        let (process, log) = self.instance(name, name, 127)?;
        self.greet(name).await.map_err(|error| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            format!("{name} does not answer: {error}\n{said}")
        })?;
        Ok(process)
    }

    /// Starts an instance that follows the one of that name.
    pub async fn peer(&self, name: &str) -> Result<TandemProcess> {
        let (process, log) = self.instance(&format!("{name}-peer"), name, 100)?;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !std::fs::read_to_string(&log).is_ok_and(|said| said.contains("follower")) {
            if Instant::now() > deadline {
                return Err(format!("the peer of {name} does not follow").into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(process)
    }

    fn instance(&self, name: &str, queue: &str, priority: u8) -> Result<(TandemProcess, PathBuf)> {
        let admin = ReservedPort::take()?;
        let data = self.folder.path().join(name);
        let mode = match self.paired {
            true => "active-passive",
            false => "active-active",
        };
        let text = format!(
            "instance.id={name}\ncluster.name=tandem\nmode={mode}\nconsumer.priority={priority}\n\
             broker.url.1={}\ncommand.queue={queue}\ncontrol.key={CONTROL_KEY}\n\
             downstream.url.1={}\ndownstream.address.1=127.0.0.1\n\
             notify.port={}\nnotify.tls=false\n\
             data.dir={}\nadmin.listen={}\nlog.level=info\n",
            self.broker.amqp_uri(),
            self.base_url(),
            self.xmpp.number(),
            data.display(),
            admin.address(),
        );
        let config = self.folder.path().join(format!("{name}.properties"));
        std::fs::write(&config, text)?;
        let log = self.log(name);
        let process = TandemProcess::start(&self.binary, &config, BTreeMap::new(), &log)?;
        Ok((process, log))
    }

    /// Log of a process of that name.
    pub fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    async fn greet(&self, queue: &str) -> Result<()> {
        wait_for_queue(&self.broker.amqp_uri(), queue).await?;
        let client = Client::open(&self.broker.amqp_uri(), queue, 1, None, WANTED).await?;
        let hello = Command {
            kind: format!("Hello#{DESTINATION}"),
            body: String::new(),
        };
        client.send(&hello).await?;
        client.settle().await?;
        client.take_latencies()?;
        Ok(())
    }

    /// Starts the bare loop on `queue` and waits until it consumes; with `streams`, the numbers of
    /// agents, it is the equal-work loop.
    pub async fn bare(
        &self,
        queue: &str,
        streams: Option<std::ops::Range<u64>>,
    ) -> Result<TandemProcess> {
        let words = ["bare", &self.broker.amqp_uri(), queue, &self.base_url()];
        let mut args = words.map(str::to_owned).to_vec();
        if let Some(agents) = streams {
            args.push(self.xmpp.address().to_string());
            args.push(agent(agents.start).to_string());
            args.push(agent(agents.end).to_string());
        }
        let process = TandemProcess::start_spec(ProcessSpec {
            name: format!("{queue} loop"),
            program: std::env::current_exe()?,
            args,
            env: BTreeMap::new(),
            log: self.log(queue),
        })?;
        wait_for_queue(&self.broker.amqp_uri(), queue).await?;
        Ok(process)
    }

    /// Signs agents in through a connector, each with its subscription: a Connect is answered
    /// once the notification service has taken the agent. Returns how long it took.
    pub async fn sign_in(&self, queue: &str, agents: std::ops::Range<u64>) -> Result<Duration> {
        let client =
            Client::open(&self.broker.amqp_uri(), queue, SIGN_IN_WINDOW, None, WANTED).await?;
        let start = Instant::now();
        for n in agents {
            let id = agent(n);
            let connect = Command {
                kind: format!("Connect#{id}"),
                body: format!("{DESTINATION},pw-{id}"),
            };
            let login = Command {
                kind: format!("Login#{id}"),
                body: format!("pw-{id},{}", FIRST_EXTENSION + n),
            };
            client.send(&connect).await?;
            client.send(&login).await?;
        }
        client.settle().await?;
        client.take_latencies()?;
        Ok(start.elapsed())
    }

    /// Signs agents in at the simulator itself, for the loops, which cannot.
    pub async fn sign_in_directly(&self, agents: std::ops::Range<u64>) -> Result<()> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        for n in agents {
            let id = agent(n);
            let body = format!(
                "<User><state>LOGIN</state><extension>{}</extension></User>",
                FIRST_EXTENSION + n
            );
            let response = http
                .put(format!("{}/User/{id}", self.base_url()))
                .basic_auth(id, Some(format!("pw-{id}")))
                .header(reqwest::header::CONTENT_TYPE, "application/xml")
                .body(body)
                .send()
                .await?;
            if response.status().as_u16() != 202 {
                return Err(format!("sign-in of {id}: {}", response.status()).into());
            }
        }
        Ok(())
    }
}

async fn wait_for_queue(broker: &str, queue: &str) -> Result<()> {
    let connection = crate::load::connect(broker, "bench/wait").await?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // A passive declare of a queue that is missing closes the channel: a new one each time.
        let channel = connection.create_channel().await?;
        let options = lapin::options::QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let found = channel
            .queue_declare(queue.into(), options, Default::default())
            .await;
        if found.is_ok_and(|queue| queue.consumer_count() > 0) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("nobody consumes {queue}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// CPU time of a process so far, user and system, in milliseconds.
pub fn cpu_ms(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = text.rsplit_once(')').ok_or("stat without a name")?.1;
    let ticks: u64 = fields
        .split_ascii_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or(0))
        .sum();
    // USER_HZ is 100 on Linux, whatever the kernel's own clock is.
    Ok(ticks as f64 * 10.0)
}

/// Resident memory of a process, in megabytes (10^6 bytes).
pub fn resident_mb(pid: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .ok_or("status without VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib * 1024.0 / 1e6)
}
