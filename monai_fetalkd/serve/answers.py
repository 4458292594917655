"""What the server answers, as JSON and in its OpenAPI document."""

from __future__ import annotations

from pydantic import BaseModel, Field

__all__ = ["Attention", "Best", "Failure", "FrameAnswer", "Health", "Picture", "Prediction", "Segment"]


class FrameAnswer(BaseModel):
    """The answer for one frame."""

    frame: int = Field(description="Index of the frame in its file.", ge=0)
    time_ms: float | None = Field(description="Time since the first frame of its cine, where the file tells.")
    plane: str | None = Field(description="The class of the largest smoothed probability; null for no standard plane.")
    probability: float = Field(description="The largest smoothed probability.", ge=0, le=1)
    probabilities: dict[str, float] = Field(description="Of each class, in this frame alone.")
    smoothed: dict[str, float] = Field(description="Of each class, over this frame and those before.")
    ms: float = Field(description="Milliseconds of decoding, preprocessing and network.", ge=0)


class Segment(BaseModel):
    """Frames in a row with the same answer."""

    plane: str | None = Field(description="Null for no standard plane.")
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


class Picture(BaseModel):
    """A frame to look at."""

    frame: int = Field(ge=0)
    width: int = Field(description="Of the frame, in pixels; the picture may be smaller.", gt=0)
    height: int = Field(gt=0)
    source: str = Field(description="The picture as a data URI.")
    attention: Attention | None = Field(description="Null where the model does not tell it.")


class Prediction(BaseModel):
    """The answer for an upload."""

    classes: list[str] = Field(description="The class table of the model.")
    threshold: float | None = Field(description="Below this probability the answer is no standard plane; null: never.")
    frames: list[FrameAnswer] = Field(description="One answer a frame, less those that cannot be read.")
    undecodable: list[int] = Field(description="Indices of the frames that cannot be read.")
    timeline: list[Segment] = Field(description="The same answers, frames in a row put together.")
    best: list[Best] = Field(description="The best frame of each plane that was found, in the order of the classes.")
    pictures: list[Picture] = Field(
        description="Where asked for: the best frames, or the most probable one where no plane was found."
    )
    ms: float = Field(description="Milliseconds from the last byte of the upload to this answer.", ge=0)


class Health(BaseModel):
    """Sent as long as the server answers at all."""

    status: str = "ok"
    version: str = Field(description="Version of monai_fetalkd.")


class Failure(BaseModel):
    """Why a request was not answered."""

    detail: str = Field(description="One sentence.")
