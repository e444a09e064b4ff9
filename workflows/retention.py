"""One sweep of retention, started by a Temporal schedule (workflows.retention_start). activities.retention does the work."""

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from activities.retention import RetentionActivities, SweepOrder, SweepReport
    from workflows import activity_options


@workflow.defn
class RetentionSweep:
    @workflow.run
    async def run(self, order: SweepOrder) -> SweepReport:
        report = await workflow.execute_activity_method(
            RetentionActivities.sweep_retention,
            order,
            summary="artifacts that nothing needs",
            **activity_options.RETENTION,
        )
        workflow.set_current_details(
            f"removed {len(report.removed)} artifacts ({report.freed_bytes} bytes) and {report.uploads} uploads that "
            f"nobody completed; kept {len(report.kept)} archived versions"
        )
        return report
