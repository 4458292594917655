"""What the server answers, as JSON and in its OpenAPI document."""

from __future__ import annotations

from pydantic import BaseModel, Field

from monai_fetalkd.deployment.runtime import Recognizer, Segmenter

__all__ = [
    "Attention",
    "Best",
    "Circumference",
    "Ellipse",
    "Failure",
    "FrameAnswer",
    "HeadFrame",
    "HeadPicture",
    "Health",
    "Measurement",
    "Model",
    "Picture",
    "Prediction",
    "Segment",
    "describe",
]


class FrameAnswer(BaseModel):
    """The answer for one frame."""

    frame: int = Field(description="Index of the frame in its file.", ge=0)
    time_ms: float | None = Field(description="Time since the first frame of its cine, where the file tells.")
    plane: str | None = Field(description="The class of the largest smoothed probability; null for undecided.")
    probability: float = Field(description="The largest smoothed probability.", ge=0, le=1)
    probabilities: dict[str, float] = Field(description="Of each class, in this frame alone.")
    smoothed: dict[str, float] = Field(description="Of each class, over this frame and those before.")
    ms: float = Field(description="Milliseconds of decoding, preprocessing and network.", ge=0)


class Segment(BaseModel):
    """Frames in a row with the same answer."""

    plane: str | None = Field(description="Null for undecided.")
    first: int = Field(description="Index of its first frame.", ge=0)
    last: int = Field(description="Index of its last frame.", ge=0)


class Best(BaseModel):
    """The frame that shows a plane best, by its probability in this frame alone."""

    plane: str
    frame: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)


class Attention(BaseModel):
    """Where the network attends in a frame."""

    values: list[list[float]] = Field(description="Rows from top to bottom, each from left to right, from 0 to 1.")
    box: tuple[float, float, float, float] = Field(
        description="Top, left, bottom and right of these values in the frame, in pixels; they may reach beyond it."
    )
    outline: list[tuple[float, float]] = Field(
        description="Corners of the scan sector in the frame, as x and y in pixels: outside of it there is no anatomy."
    )


class Picture(BaseModel):
    """A frame to look at; large and with attention where it is the best one of a plane."""

    frame: int = Field(ge=0)
    width: int = Field(description="Of the frame, in pixels; the picture may be smaller.", gt=0)
    height: int = Field(gt=0)
    source: str = Field(description="The picture as a data URI.")
    attention: Attention | None = Field(
        description="Null for other frames, and for a model whose attention is too coarse."
    )


class Model(BaseModel):
    """Which model has answered."""

    name: str = Field(description="Of its file.")
    version: str | None = Field(description="As its file tells.")
    exported: str | None = Field(description="Date and time of its export.")
    checkpoint: str | None = Field(description="SHA-256 of the checkpoint that it was exported from.")
    precision: str | None = Field(description="Of its numbers.")
    runtime: str = Field(description="What computes it.")
    attention_grid: tuple[int, int] | None = Field(
        description="Rows and columns of its attention; null where it does not tell where it attends."
    )

    def __str__(self) -> str:
        parts = (
            self.name,
            self.version and f"version {self.version}",
            self.precision,
            self.exported and f"exported {self.exported[:10]}",
            self.checkpoint and f"checkpoint {self.checkpoint[:12]}",
            f"on {self.runtime}",
        )
        return ", ".join(part for part in parts if part)


class Prediction(BaseModel):
    """The answer for an upload."""

    classes: list[str] = Field(description="The class table of the model.")
    threshold: float | None = Field(description="Below this probability no plane is decided on; null: never.")
    frames: list[FrameAnswer] = Field(description="One answer a frame, less those that cannot be read.")
    undecodable: list[int] = Field(description="Indices of the frames that cannot be read.")
    timeline: list[Segment] = Field(description="The same answers, frames in a row put together.")
    best: list[Best] = Field(description="The best frame of each plane that was found, in the order of the classes.")
    missing: list[str] = Field(description="The planes of which no frame was found.")
    model: Model
    pictures: list[Picture] = Field(
        description="Where asked for, all frames that can be read: large the best ones, or the most probable one where "
        "no plane was found; small the others."
    )
    ms: float = Field(description="Milliseconds from the last byte of the upload to this answer.", ge=0)


def describe(model: Recognizer | Segmenter) -> Model:
    """Which model it is that answers."""
    told = model.metadata
    return Model(
        name=model.name,
        version=told.get("version"),
        exported=told.get("created"),
        checkpoint=told.get("checkpoint_sha256"),
        precision=told.get("precision"),
        runtime=model.backend,
        attention_grid=model.attention_grid if isinstance(model, Recognizer) else None,
    )


class Ellipse(BaseModel):
    """The ellipse fitted to the mask of a head, in pixels of its frame."""

    center: tuple[float, float] = Field(description="Row and column.")
    semi_axes: tuple[float, float] = Field(description="The longer and the shorter one.")
    angle: float = Field(description="Of the longer axis, in radians from the row axis towards the column axis.")


class HeadFrame(BaseModel):
    """The head in one frame."""

    frame: int = Field(description="Index of the frame in its file.", ge=0)
    time_ms: float | None = Field(description="Time since the first frame of its cine, where the file tells.")
    circumference: float | None = Field(description="Length of the ellipse; null where there is no head.")
    unit: str = Field(description="mm, or pixels where the file does not tell the size of a pixel.")
    ellipse: Ellipse | None = Field(description="Null where there is no head.")
    ms: float = Field(description="Milliseconds of decoding, network and fit.", ge=0)


class Circumference(BaseModel):
    """The head circumference over the frames of a cine in which a head was found."""

    median: float
    smallest: float
    largest: float
    unit: str
    frames: int = Field(description="How many frames they are of.", gt=0)


class HeadPicture(BaseModel):
    """A frame to look at, with what was found in it."""

    frame: int = Field(ge=0)
    width: int = Field(description="Of the frame, in pixels; the picture may be smaller.", gt=0)
    height: int = Field(gt=0)
    source: str = Field(description="The picture as a data URI.")
    mask: str = Field(
        description="The mask as a data URI, of the same size: in colour where the head is, else transparent."
    )
    outline: list[tuple[float, float]] = Field(description="Points of the ellipse in the frame, as x and y in pixels.")


class Measurement(BaseModel):
    """The answer of a model that marks the fetal head."""

    classes: list[str] = Field(description="The class table of the model.")
    frames: list[HeadFrame] = Field(description="One answer a frame, less those that cannot be read.")
    undecodable: list[int] = Field(description="Indices of the frames that cannot be read.")
    circumference: Circumference | None = Field(
        description="Null where no head was found, or where frames differ in whether they tell the size of a pixel."
    )
    model: Model
    pictures: list[HeadPicture] = Field(description="Where asked for, all frames that can be read.")
    ms: float = Field(description="Milliseconds from the last byte of the upload to this answer.", ge=0)


class Health(BaseModel):
    """Sent as long as the server answers at all."""

    status: str = "ok"
    version: str = Field(description="Version of monai_fetalkd.")


class Failure(BaseModel):
    """Why a request was not answered."""

    detail: str = Field(description="One sentence.")
