//! The image that helper containers are made of: this very program, alone in it. The engine gets it through its load
//! API, so no registry is needed, and what it holds is known by the hash of its one layer.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::Bytes;
use bollard::query_parameters::ImportImageOptions;
use futures::{Stream, StreamExt as _};
use sha2::{Digest as _, Sha256 as Hasher};

use super::{DockerEngine, EngineError, crash_points, limited};
use crate::files::{sha256, to_name};
use crate::snapshot::{TAR_END, head_of_file, tar_padding};

/// Where the program is in the image.
pub const PROGRAM: &str = "/tenantry-agent";
const NAME: &str = "tenantry-agent";
const REPOSITORY: &str = "tenantry.local/helper";
/// How much is read and handed over at a time.
const CHUNK: usize = 1 << 20;
/// How long the engine may take over the image.
const LOAD_LIMIT: Duration = Duration::from_mins(5);
/// The magic number that every program begins with, and what follows it on machines that count in 64 bits from the
/// lower end, which are the only ones that we are built for.
const ELF: [u8; 6] = [0x7f, b'E', b'L', b'F', 2, 1];
/// The kind of segment that names a program's loader.
const INTERPRETER: u32 = 3;

/// This very program, as the one layer of an image.
#[derive(Debug)]
pub struct Program {
    /// What runs, even where it was replaced on disk since.
    file: File,
    size: u64,
    /// The layer's hash.
    layer: String,
}

impl Program {
    /// What this process runs; looked at once. It reads the whole program.
    pub fn own() -> Result<Arc<Self>, String> {
        static OWN: OnceLock<Arc<Program>> = OnceLock::new();
        if let Some(own) = OWN.get() {
            return Ok(own.clone());
        }
        let program =
            Arc::new(Self::read("/proc/self/exe").map_err(|error| format!("it can't be read: {error}"))??);
        Ok(OWN.get_or_init(|| program).clone())
    }

    fn read(path: &str) -> std::io::Result<Result<Self, String>> {
        let file = File::open(path)?;
        if is_loaded_by_another(&file)? {
            let problem = "it is not linked statically, so it can't run in a container of its own";
            return Ok(Err(problem.to_owned()));
        }
        let size = file.metadata()?.len();
        let mut hash = Hasher::new();
        hash.update(head_of_file(NAME, 0o755, size));
        let (mut content, mut chunk) = ((&file).take(size), vec![0; CHUNK]);
        loop {
            match content.read(&mut chunk)? {
                0 => break,
                read => hash.update(&chunk[..read]),
            }
        }
        hash.update(vec![0; tar_padding(size)]);
        hash.update(TAR_END);
        let layer = format!("sha256:{}", to_name(hash.finalize().as_slice()));
        Ok(Ok(Self { file, size, layer }))
    }

    /// The image's name: another program has another one.
    pub fn image(&self) -> String {
        format!("{REPOSITORY}:{}", self.tag())
    }

    fn tag(&self) -> &str {
        self.layer.trim_start_matches("sha256:")
    }

    fn config(&self) -> String {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        serde_json::json!({
            "architecture": architecture, "os": "linux", "created": "1970-01-01T00:00:00Z",
            "config": {"Entrypoint": [PROGRAM]},
            "rootfs": {"type": "layers", "diff_ids": [self.layer]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": NAME}],
        })
        .to_string()
    }

    /// What stands before the program in the archive that the engine is given, and what after it.
    fn around(&self) -> (Vec<u8>, Vec<u8>) {
        let config = self.config();
        let named = format!("{}.json", sha256(config.as_bytes()));
        let manifest =
            serde_json::json!([{"Config": named, "RepoTags": [self.image()], "Layers": ["layer.tar"]}]);
        let mut before = Vec::new();
        for (name, text) in [(named.as_str(), config.as_str()), ("manifest.json", &manifest.to_string())] {
            before.extend(head_of_file(name, 0o644, text.len() as u64));
            before.extend_from_slice(text.as_bytes());
            before.resize(before.len() + tar_padding(text.len() as u64), 0);
        }
        let inner = head_of_file(NAME, 0o755, self.size);
        let padding = tar_padding(self.size);
        let layer = inner.len() as u64 + self.size + padding as u64 + TAR_END.len() as u64;
        before.extend(head_of_file("layer.tar", 0o644, layer));
        before.extend(inner);
        let mut after = vec![0; padding];
        after.extend_from_slice(&TAR_END);
        after.resize(after.len() + tar_padding(layer), 0);
        after.extend_from_slice(&TAR_END);
        (before, after)
    }

    /// The archive, piece by piece.
    fn archive(self: &Arc<Self>) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
        let (before, after) = self.around();
        let chunks = self.size.div_ceil(CHUNK as u64);
        let program = self.clone();
        let content = futures::stream::iter(0..chunks).then(move |n| {
            let program = program.clone();
            async move {
                let read = tokio::task::spawn_blocking(move || program.chunk(n * CHUNK as u64));
                read.await.map_err(std::io::Error::other)?
            }
        });
        let whole = |bytes: Vec<u8>| futures::stream::iter([Ok(Bytes::from(bytes))]);
        whole(before).chain(content).chain(whole(after))
    }

    fn chunk(&self, offset: u64) -> std::io::Result<Bytes> {
        let length = usize::try_from(self.size - offset).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = vec![0; length];
        self.file.read_exact_at(&mut chunk, offset)?;
        Ok(chunk.into())
    }
}

/// Whether a program needs a loader, which an image with nothing else in it does not have.
fn is_loaded_by_another(file: &File) -> std::io::Result<bool> {
    let mut head = [0; 64];
    file.read_exact_at(&mut head, 0)?;
    if head[..ELF.len()] != ELF {
        return Ok(true);
    }
    let half = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let mut table = [0; 8];
    table.copy_from_slice(&head[32..40]);
    let (table, length, count) = (u64::from_le_bytes(table), half(54), half(56));
    for n in 0..count {
        let mut kind = [0; 4];
        file.read_exact_at(&mut kind, table + u64::from(n) * u64::from(length))?;
        if u32::from_le_bytes(kind) == INTERPRETER {
            return Ok(true);
        }
    }
    Ok(false)
}

impl DockerEngine {
    /// Gives the engine this program as an image, unless it has it. Those of other versions of it go.
    pub async fn own_image(&self, program: &Arc<Program>) -> Result<String, EngineError> {
        let name = program.image();
        if !self.has(program).await? {
            tracing::info!(image = name, "giving the engine the image of helper containers");
            self.load(program).await?;
            if !self.has(program).await? {
                let message = format!("{name} is not there after it was loaded");
                return Err(EngineError::Refused { doing: "load an image".to_owned(), status: 0, message });
            }
            self.release_others(program).await?;
        }
        Ok(name)
    }

    /// Whether there is such an image that holds this very program: names can be given to anything.
    async fn has(&self, program: &Program) -> Result<bool, EngineError> {
        let name = program.image();
        let ask = |docker: bollard::Docker| async move { docker.inspect_image(&name).await };
        match self.read("look at an image", ask).await {
            Ok(seen) => {
                let layers = seen.root_fs.and_then(|root| root.layers).unwrap_or_default();
                Ok(layers == [program.layer.clone()])
            }
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn load(&self, program: &Arc<Program>) -> Result<(), EngineError> {
        let doing = "load an image";
        let docker = self.client().await?;
        crash_points::at(doing, "before");
        let options = ImportImageOptions { quiet: true, ..Default::default() };
        let mut answer = Box::pin(docker.import_image_stream(options, program.archive(), None));
        let work = async {
            while let Some(step) = answer.next().await {
                let step = step.map_err(|error| EngineError::from_bollard(doing, &self.socket, error))?;
                if let Some(message) = step.error_detail.and_then(|detail| detail.message) {
                    return Err(EngineError::Refused { doing: doing.to_owned(), status: 0, message });
                }
            }
            Ok(())
        };
        let loaded = limited(doing, LOAD_LIMIT, work).await?;
        crash_points::at(doing, "after");
        loaded
    }

    /// One that a container of another agent still uses stays until the next time.
    async fn release_others(&self, program: &Program) -> Result<(), EngineError> {
        let names = self.names_like(REPOSITORY).await?;
        for name in names.into_iter().filter(|name| *name != program.image()) {
            if let Err(error) = self.untag(&name).await {
                tracing::info!(name, %error, "the image of another version's helpers is left");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_known() {
        // Tests are linked statically, as the agent is; a shell is not.
        let by_another = |path: &str| is_loaded_by_another(&File::open(path).unwrap()).unwrap();
        assert_eq!([by_another("/bin/sh"), by_another("/proc/self/exe")], [true, false]);
        assert!(Program::read("/bin/sh").unwrap().unwrap_err().contains("statically"));
        assert!(Program::own().is_ok());
    }

    #[tokio::test]
    async fn what_the_engine_gets_is_a_tar_with_the_layer_that_was_hashed() {
        let folder = tempfile::tempdir().unwrap();
        let content: Vec<u8> = (0..CHUNK + 700).map(|n| u8::try_from(n % 251).unwrap()).collect();
        std::fs::write(folder.path().join("program"), &content).unwrap();
        let file = File::open(folder.path().join("program")).unwrap();
        let layer = "sha256:0".to_owned();
        let program = Arc::new(Program { file, size: content.len() as u64, layer });
        let pieces: Vec<_> = program.archive().collect().await;
        let bytes: Vec<u8> = pieces.into_iter().flat_map(|piece| piece.unwrap().to_vec()).collect();
        std::fs::write(folder.path().join("image.tar"), bytes).unwrap();
        let run = |text: &str| {
            let run =
                std::process::Command::new("sh").args(["-ec", text]).current_dir(&folder).output().unwrap();
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            String::from_utf8(run.stdout).unwrap()
        };
        let listed = run("tar -tf image.tar");
        assert!(listed.ends_with(".json\nmanifest.json\nlayer.tar\n"), "{listed}");
        run("tar -xf image.tar && tar -xf layer.tar && cmp program tenantry-agent && test -x tenantry-agent");
        let hashed = run("sha256sum layer.tar");
        let mut whole = head_of_file(NAME, 0o755, content.len() as u64);
        whole.extend(&content);
        whole.resize(whole.len() + tar_padding(content.len() as u64), 0);
        whole.extend(TAR_END);
        assert_eq!(hashed.split(' ').next().unwrap(), sha256(&whole).to_string());
    }
}
