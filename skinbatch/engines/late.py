"""An engine that is made when its first worker is needed, so that a run with nothing to do starts none."""

from __future__ import annotations

from skinbatch import signals
from skinbatch.config import Config, EngineSettings
from skinbatch.engines.pool import Engine, WorkerPool
from skinbatch.engines.setup import Prepared
from skinbatch.ray_environment import cluster_address, settle
from skinbatch.scoring.assignment import ScoringContext


class LateEngine:
    """The engine of `settings`. Ray is neither imported nor started before it is made.

    prepared: The run that it is for; set before the engine is made.
    """

    name = "late"

    def __init__(self, settings: EngineSettings) -> None:
        """Raise UsageError for settings that go with no engine of this name."""
        self.settings = settings
        self.prepared: Prepared | None = None
        self._engine: Engine | None = None
        if settings.name == "local":
            from skinbatch.engines.local import LocalEngine

            self._local = LocalEngine(settings)

    def made(self) -> Engine:
        """Return the engine, made and checked at the first call. UsageError if workers cannot be had as set."""
        assert self.prepared is not None
        if self._engine is None:
            with signals.heard_by(signals.interrupt):  # a cluster may take its time; Ctrl-C does not wait for it
                self._engine = self._make()
                self._engine.check(self.prepared.source_uri, self.prepared.store.uri, self.prepared.config)
        return self._engine

    def _make(self) -> Engine:
        if self.settings.name == "local":
            return self._local
        settle(cluster_address(self.settings.ray_address))  # before ray is imported
        from skinbatch.engines.ray_engine import RayEngine

        return RayEngine(self.settings)

    def check(self, source: str, destination: str, config: Config) -> None:
        """Make the engine, which checks itself."""
        self.made()

    def start(self, context: ScoringContext) -> WorkerPool:
        return self.made().start(context)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
