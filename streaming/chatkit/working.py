"""What a model does beside its text, as ChatKit's workflow: thoughts, tool calls and their results."""

from typing import Any

from chatkit.types import (
    CustomSummary,
    CustomTask,
    Task,
    ThoughtTask,
    ThreadItemAddedEvent,
    ThreadItemDoneEvent,
    ThreadItemUpdatedEvent,
    ThreadStreamEvent,
    Workflow,
    WorkflowItem,
    WorkflowTaskAdded,
    WorkflowTaskUpdated,
)

from streaming.events import ToolCall, ToolResult, json_line

MAX_SHOWN_CHARS = 2000
MAX_TITLE_CHARS = 100
FEW_CHARS = 200
MOST_TOOLS_NAMED = 3

Told = list[ThreadStreamEvent]


class Working:
    """One stretch of work between two texts: a workflow item and its tasks."""

    def __init__(self, item_id: str, about: dict[str, Any]) -> None:
        self.item = WorkflowItem(id=item_id, workflow=Workflow(type="custom", tasks=[]), **about)
        self._places: dict[str, int] = {}
        self._tools: list[str] = []
        self._told_chars = 0

    def think(self, text: str) -> Told:
        """Take a piece of reasoning.

        An update holds the whole task, so one is told only when a thought has grown
        by a quarter: what is sent stays in proportion to what was thought.
        """
        tasks = self.item.workflow.tasks
        if not tasks or not isinstance(tasks[-1], ThoughtTask):
            self._told_chars = len(text)
            return self._add(
                ThoughtTask(title="Thinking", content=text, status_indicator="loading"), "reasoning"
            )
        task = tasks[-1]
        task.content += text
        if len(task.content) - self._told_chars < max(FEW_CHARS, self._told_chars // 4):
            return []
        self._told_chars = len(task.content)
        return [self._updated(len(tasks) - 1)]

    def call(self, call: ToolCall) -> Told:
        self._tools.append(call.tool)
        self._places[call.id] = len(self.item.workflow.tasks)
        shown = _shown(call.arguments)
        return self._add(_tool_task(call.tool, shown, "loading"), "custom")

    def result(self, result: ToolResult) -> Told:
        text = result.result if isinstance(result.result, str) else json_line(result.result).decode()
        shown = ("Failed: " if result.failed else "") + _shown(text)
        place = self._places.get(result.id)
        if place is None:  # its call was before the last text
            return self._add(_tool_task(result.tool, shown, "complete"), "custom")
        task = self.item.workflow.tasks[place]
        assert isinstance(task, CustomTask)
        task.content = f"{task.content}\n\n{shown}"
        task.status_indicator = "complete"
        return [self._updated(place)]

    def end(self) -> Told:
        told: Told = []
        for place, task in enumerate(self.item.workflow.tasks):
            if task.status_indicator == "loading":
                task.status_indicator = "complete"
                told.append(self._updated(place))
        self.item.workflow.summary = CustomSummary(title=self._summary())
        return [*told, ThreadItemDoneEvent(item=self.item)]

    def _add(self, task: Task, kind: Any) -> Told:
        workflow = self.item.workflow
        told: Told = []
        if not workflow.tasks:
            workflow.type = kind
            told.append(ThreadItemAddedEvent(item=self.item.model_copy(deep=True)))
        workflow.tasks.append(task)
        added = WorkflowTaskAdded(task_index=len(workflow.tasks) - 1, task=task.model_copy())
        return [*told, ThreadItemUpdatedEvent(item_id=self.item.id, update=added)]

    def _updated(self, place: int) -> ThreadItemUpdatedEvent:
        task = self.item.workflow.tasks[place].model_copy()
        return ThreadItemUpdatedEvent(
            item_id=self.item.id, update=WorkflowTaskUpdated(task_index=place, task=task)
        )

    def _summary(self) -> str:
        if not self._tools:
            return "Thought about it"
        named = list(dict.fromkeys(self._tools))
        more = len(named) - MOST_TOOLS_NAMED
        text = "Used " + ", ".join(named[:MOST_TOOLS_NAMED]) + (f" and {more} more" if more > 0 else "")
        return text[:MAX_TITLE_CHARS]


def _tool_task(tool: str, content: str, status: Any) -> CustomTask:
    return CustomTask(
        title=tool[:MAX_TITLE_CHARS], icon="square-code", content=content, status_indicator=status
    )


def _shown(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else text[:MAX_SHOWN_CHARS] + "…"
